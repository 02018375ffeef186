#!/usr/bin/env python3
"""ballast-plan explain: what it says of a plan is what the plan says; what limits a step, what each rank does, what its
figures rest on and what to change next are there, and fit the plan."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support.tools import ROOT, Check, folder, made_up, must, run, write_trace  # noqa: E402

check = Check()
MODELS, CLUSTERS = ROOT / "costmodel/models", ROOT / "costmodel/clusters"


def explained(path, *options):
    return must("ballast-plan", "explain", path, *options)


def said(text, *parts):
    for part in parts:
        check(part in text, f"explain does not say {part!r}: {text}")


def searched(tmp, model, ranks, batch, *options, cluster=CLUSTERS / "h100-hgx.json"):
    """The plan, and its explanation, whose figures are the plan's."""
    path = f"{tmp}/plan.json"
    must("ballast-plan", "search", "--model", MODELS / f"{model}.json", "--cluster", cluster, "--ranks", ranks, "--batch", batch, *options,
         "-o", path)
    plan, text = json.load(open(path, encoding="utf-8")), explained(path)
    layout, search = plan["layout"], plan["search"]
    us = plan["predicted"]["step_us"]
    tokens = batch * search["sequence"] / us * 1e6
    said(text, f"Layout of {search['model']}: {ranks} ranks.", f"{us * 1e-3:.1f} ms a step, {tokens:.0f} tokens a second",
         f"takes {search['roofline_us'] * 1e-3:.1f} ms", f"none that fits takes less than {search['bound_us'] * 1e-3:.1f} ms",
         "the fastest of them" if search["bound_us"] > us * (1 - 1e-7) else f"within {100 * (us / search['bound_us'] - 1):.2f} %")
    for name, part in search["time_us"].items():
        row = re.search(rf"^  {name} +([\d.]+) ms +([\d.]+) %", text, re.M)
        check(abs(float(row[1]) - part * 1e-3) < 0.06 and abs(float(row[2]) - 100 * part / us) < 0.06 if row else part < 1e-3 * us, f"{name}: {text}")
    ranks_of = re.findall(r"^  (\d+) to (\d+):(.*)$", text, re.M)
    each = ranks // layout["pp"]
    check([(int(a), int(b)) for a, b, _ in ranks_of] == [(p * each, (p + 1) * each - 1) for p in range(layout["pp"])], f"{ranks_of}")
    for p, (_, _, words) in enumerate(ranks_of):
        named = [n for a, b in re.findall(r"(\d+)(?: to (\d+))?", words) for n in range(int(a), int(b or a) + 1)]
        check(named == sum(layout["stages"][p::layout["pp"]], []), f"layers of position {p}: {words}")
        check(("embedding" in words) == (p == 0) and ("head" in words) == (p == layout["pp"] - 1), words)
    said(text, f"{plan['predicted']['memory_bytes'] * 1e-9:.1f} GB of the {search['memory_limit_bytes'] * 1e-9:.1f}",
         f"Batch: {batch} sequences of {search['sequence']} tokens", *(source for source in search["sources"].values()))
    limits = re.search(r"What limits it:.*?\nMemory", text, re.S)[0]
    order = [float(x) for x in re.findall(r"^  \w+ +([\d.]+) %", limits, re.M)]
    check(order == sorted(order, reverse=True) and all(x >= 1 for x in order), f"the largest comes first: {limits}")
    return plan, text


def layouts(tmp):
    plan, text = searched(tmp, "deepseek-v3", 1024, 8192)
    said(text, "at the rate below on all ranks", "the 256 of a layer are spread over", "[fitted to published steps]", "routing is assumed", "nothing was measured on your devices",
         "(zero 1) over the ranks that hold the same weights", "search --overlap exchange")
    _, text = searched(tmp, "deepseek-v3", 1024, 8192, "--overlap", "exchange", "--type", "fp8", "--simulate", 0)
    said(text, "in closed form", "Products with weights are computed in fp8")
    check("search --overlap" not in text, "advises what the plan does already")
    _, text = searched(tmp, "mixtral-8x7b", 16, 64, "--memory-fraction", 1, "--gradients", "bf16", "--recompute", "full")
    said(text, "gradients in bf16", "whole layers (full)", "it buys memory")
    plan, text = searched(tmp, "mixtral-8x7b", 64, 256, "--shard", 8, "--zero", 3, "--dispatch", "choices", "--copy-slots", 1)
    shared = plan["layout"]["dp"] * plan["layout"]["cp"]
    said(text, f"over groups of 8 ranks that hold the same weights, and each of the {shared // 8} groups has all of it" if shared > 8 else "(zero 3) over",
         "once for each choice", "room for 1 copies")
    must("ballast-trace", "gen", "--layers", 2, "--ranks", 1, "--experts", 8, "--steps", 4, "--zipf", 0.8, "-o", f"{tmp}/t.blt")
    plan, text = searched(tmp, "mixtral-8x7b", 64, 256, "--ep", 8, "--trace", f"{tmp}/t.blt", "--simulate", 1)
    said(text, "[recorded]", f"{100 * (plan['predicted']['imbalance'] - 1):.0f} % more tokens than the mean: search --copy-slots 1",
         f"search --simulate {plan['search']['simulated'] + plan['search']['undecided']}")
    check("routing is assumed" not in text, "calls a recorded routing assumed")
    cluster = json.load(open(CLUSTERS / "h100-hgx.json", encoding="ascii"))
    cluster["device"].update(num_bytes=4, tflops=1)
    json.dump(cluster, open(f"{tmp}/slow.json", "w", encoding="ascii"))
    must("ballast-profile", "--ranks", 1, "-o", f"{tmp}/profile.json")
    _, text = searched(tmp, "mixtral-8x7b", 32, 128, "--profile", f"{tmp}/profile.json", cluster=f"{tmp}/slow.json")
    check(text.count("[measured]") == 2 and "nothing was measured" not in text, text)
    said(text, "arithmetic alone, at the devices' peak on all ranks")
    profile = json.load(open(f"{tmp}/profile.json", encoding="utf-8"))
    profile["ranks"] = 8
    profile["curves"]["exchange"] = {"per": "bytes", "amounts": [1000, 1001000], "times_us": [4, 44]}  # 7/8 of it over a link
    json.dump(profile, open(f"{tmp}/links.json", "w", encoding="ascii"))
    plan, text = searched(tmp, "mixtral-8x7b", 32, 128, "--profile", f"{tmp}/links.json", cluster=f"{tmp}/slow.json")
    source = plan["search"]["sources"]["intra"]
    check(text.count("[measured]") == 3 and source.startswith("21.88 GB/s a direction, 3.96 us in exchanges (measured, ") and "links.json" in source, source)
    plan["search"]["bound_us"] = 0
    json.dump(plan, open(f"{tmp}/plan.json", "w", encoding="ascii"))
    text = explained(f"{tmp}/plan.json")
    check("none that fits takes less" not in text and "proved" not in text, f"a bound of 0 proves something: {text}")
    searched(tmp, "nemotron-3-nano-30b-a3b", 64, 128)


def placements(tmp):
    trace, path = f"{tmp}/p.blt", f"{tmp}/placed.json"
    write_trace(trace, made_up(5))
    base = ["ballast-plan", "place", "--trace", trace, "--ranks", 4]
    must(*base, "--slots", 4, "--homes", "fixed", "-o", path)
    text = explained(path)
    said(text, "expert e on rank e / 4", "Copies: none", "one more slot a rank", "Ranks of the worst layer")
    layers = json.load(open(path, encoding="utf-8"))["placement"]["layers"]
    worst = max(layers, key=lambda layer: layer["imbalance"])
    said(text, f"\nLayer {worst['layer']}: ", f"{100 * (worst['imbalance'] - 1):.2f} % in the worst layer, {worst['layer']}.")
    check(text.count("\nLayer ") == 1 and explained(path, "--layer", -1).count("\nLayer ") == 3, "one layer, or all")
    said(explained(path, "--layer", 2), "\nLayer 2: ")
    table = re.findall(r"^ +(\d+) +\+([\d.]+) +\+([\d.]+) +(\d+) +(\d+)$", text, re.M)
    check([(int(a), float(b)) for a, b, *_ in table] == [(x["layer"], round(100 * (x["imbalance"] - 1), 2)) for x in layers], f"{table}")
    must(*base, "--slots", 5, "-o", path)
    text = explained(path)
    said(text, "it is optimal", "take part of their expert's tokens", "--slots 5 --policy ballast", f"--plan {path}")
    check("one more slot" not in text and "come nearer" not in text, "advises where nothing is left to win")
    must(*base, "--slots", 5, "--split", "even", "-o", path)
    said(explained(path), "Split: even")
    plan = json.load(open(path, encoding="utf-8"))
    plan["layout"] = {"tp": 1, "cp": 1, "dp": 8, "pp": 1, "vp": 1, "etp": 1, "ep": 4, "edp": 2, "zero": 0, "micro_batch": 1, "micro_batches": 2,
                      "stages": [[0, 1, 2]]}
    plan.pop("predicted"), plan.pop("bound")
    json.dump(plan, open(path, "w", encoding="utf-8"))
    said(explained(path), "Layout: 8 ranks.", "0 to 7: layers 0 to 2", "the 16 of a layer are spread over 4 ranks (ep), 4 on each", "2 replicas (edp)",
         "Batch: 16 sequences a step", "(zero 0)", "Placement: 16 experts")
    plan.pop("placement")
    json.dump(plan, open(path, "w", encoding="utf-8"))
    check("Next:" not in explained(path), "there is nothing to say of a bare layout")
    code, _, err = run("ballast-plan", "explain", path, "--layer", 0)
    check(code == 1 and "has no placement" in err, f"{code} {err}")


with folder() as work:
    layouts(work)
    placements(work)
sys.exit(check.end())
