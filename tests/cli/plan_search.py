#!/usr/bin/env python3
"""ballast-plan search, end to end: the plan it writes, uneven stages, a trace's imbalance, limits of time and memory, and
what it says when nothing fits or the input is wrong. time limit: 600 s"""
import json
import os
import re
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support.tools import ROOT, Check, folder, must, run  # noqa: E402

check = Check()


def cpu_seconds():
    """Of the programs that have ended; others may share the machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

MODELS, CLUSTERS = ROOT / "costmodel/models", ROOT / "costmodel/clusters"


def search(model, cluster, *arguments):
    return run("ballast-plan", "search", "--model", MODELS / f"{model}.json", "--cluster", CLUSTERS / f"{cluster}.json",
               *arguments)


def refused(code, parts, *arguments):
    found, out, err = search(*arguments)
    check(found == code and not out and all(part in err for part in parts), f"{arguments}: exit {found}, {err!r}")


def best_plan(tmp):
    start = cpu_seconds()
    code, out, err = search("deepseek-v3", "h100-hgx", "--ranks", 1024, "--batch", 8192, "--json", "-o",
                            f"{tmp}/plan.json")
    seconds = cpu_seconds() - start
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"DeepSeek-V3 on 1024 H100: {seconds:.2f} s, {kilobytes / 1024:.0f} MB")
    check(code == 0 and seconds < 10 and kilobytes < 500e3, f"exit {code}, {seconds} s, {kilobytes} kB: {err}")
    result = json.loads(out)
    best, plan = result["top"][0], json.load(open(f"{tmp}/plan.json", encoding="ascii"))
    layout = plan["layout"]
    check(layout["tp"] * layout["cp"] * layout["dp"] * layout["pp"] == 1024, f"{layout}")
    check(layout["etp"] * layout["ep"] * layout["edp"] * layout["pp"] == 1024, f"{layout}")
    check(sum(layout["stages"], []) == list(range(61)), f"{layout['stages']}")
    check([len(s) for s in layout["stages"]] == best["stage_layers"], "stages of plan and table differ")
    check(layout["dp"] * layout["micro_batch"] * layout["micro_batches"] == 8192, f"{layout}")
    check.near(plan["predicted"]["step_us"], best["step_us"], 1, "step of the plan")
    check.near(sum(best["time_us"].values()), best["step_us"], 1e-6 * best["step_us"], "parts of the step")
    check.near(sum(best["memory"].values()), best["memory_bytes"], 1e4, "parts of the memory")
    check(best["memory_bytes"] <= 0.9 * 80e9, "the best fills too much")
    check(all(e["simulated_us"] == e["step_us"] for e in result["top"]), "not all of the top are simulated")
    check(layout["recompute"] == best["recompute"], f"{layout}")
    check(result["bound_us"] <= best["step_us"] and result["simulated"] >= len(result["top"]), f"{result['simulated']}")
    times = [entry["step_us"] for entry in result["top"]]
    check(times == sorted(times) and len(times) == 10, f"{times}")
    check(result["roofline_us"] <= result["bound_us"] <= times[0], "bounds above the best")
    check("sound" in must("ballast-plan", "check", f"{tmp}/plan.json"), "check refuses the plan")
    said = plan["search"]
    check([said[k] for k in ("layouts", "simulated", "undecided")] == [result[k] for k in ("layouts", "simulated", "open")], f"{said}")
    for ours, theirs in ((said["time_us"], best["time_us"]), ({k.replace("_", " "): v for k, v in said["memory_bytes"].items()}, best["memory"]),
                         ({"bound_us": said["bound_us"]}, {"bound_us": result["bound_us"]}), ({"r": said["roofline_us"]}, {"r": result["roofline_us"]})):
        check(ours.keys() == theirs.keys() and all(abs(ours[k] - theirs[k]) <= 1e-6 * best["memory_bytes"] for k in ours), f"{ours} {theirs}")
    check(said["memory_limit_bytes"] == 0.9 * 80e9 and result["efficiency_source"] in said["sources"]["compute"], f"{said}")
    for key, factor, part in (("time_us", 1.01, "adds up to"), ("memory_bytes", 0.99, "adds up to"), ("bound_us", 2, "lies above")):
        bad = json.loads(json.dumps(plan))
        bad["search"][key] = {k: v * factor for k, v in said[key].items()} if isinstance(said[key], dict) else said[key] * factor
        json.dump(bad, open(f"{tmp}/bad.json", "w", encoding="ascii"))
        code, _, err = run("ballast-plan", "check", f"{tmp}/bad.json")
        check(code == 1 and f"search.{key}" in err and part in err, f"{key}: exit {code} {err}")


def simulated(tmp):
    """A plan of the search is simulated as it was in the search, whatever its layout; pieces are in the plan."""
    model, cluster = MODELS / "mixtral-8x7b.json", CLUSTERS / "h100-hgx.json"
    must("ballast-trace", "gen", "--layers", 2, "--ranks", 1, "--experts", 8, "--steps", 4, "--zipf", 0.8, "-o", f"{tmp}/s.blt")
    traced = ["--trace", f"{tmp}/s.blt"]
    times, kept = {}, {"--shard": "shard", "--copy-slots": "copy_slots", "--sequence": "sequence", "--type": "type",
                       "--ranks-per-node": "ranks_per_node", "--gradients": "gradients"}
    for more in (["--max-pieces", 4, "--micro-batch", 4, "--ranks-per-node", 2], ["--overlap", "exchange", "--vp", 2], ["--zero", 3, "--recompute", "full"], ["--cp", 2],
                 ["--pp", 1, "--tp", 1], ["--zero", 3, "--pp", 1], ["--zero", 3, "--pp", 1, "--shard", 8], ["--gradients", "bf16"],
                 ["--copy-slots", 1, *traced], ["--sequence", 2048], ["--type", "fp8"],
                 ["--imbalance", 1.3], ["--ranks-per-node", 4]):
        must("ballast-plan", "search", "--model", model, "--cluster", cluster, "--ranks", 64, "--batch", 256, *more, "-o",
             f"{tmp}/s.json")
        plan = json.load(open(f"{tmp}/s.json", encoding="ascii"))
        of_plan = ["ballast-plan", "simulate", "--plan", f"{tmp}/s.json", "--model", model, "--cluster", cluster]
        if "--trace" in more:
            of_plan += traced
        for option, key in kept.items():
            check(plan["layout"].get(key) == (more[more.index(option) + 1] if option in more else None), f"{more}: {plan['layout']}")
        result = json.loads(must(*of_plan, "--json", "--perfetto", f"{tmp}/t.json"))
        check.near(result["step_us"], plan["predicted"]["step_us"], 1e-6 * result["step_us"], f"{more}")
        times[tuple(more)] = result["step_us"]
        check.near(sum(result["time_us"].values()), result["step_us"], 1e-6 * result["step_us"], "parts")
        slices = [e for e in json.load(open(f"{tmp}/t.json", encoding="ascii"))["traceEvents"] if e["ph"] == "X"]
        check.near(max(e["ts"] + e["dur"] for e in slices), result["step_us"], 1e-6 * result["step_us"], "timeline")
        check(len({e["pid"] for e in slices}) == plan["layout"]["pp"], "a process for each pipeline position")
        if "--max-pieces" in more:
            check(plan["layout"].get("pieces") in (2, 4), f"{plan['layout']}")
    check(times["--zero", 3, "--pp", 1, "--shard", 8] > times["--zero", 3, "--pp", 1], f"replicas of a state cost: {times}")
    check("sound" in must("ballast-plan", "check", f"{tmp}/s.json"), "check refuses the plan")
    bad = json.load(open(f"{tmp}/s.json", encoding="ascii"))
    bad["layout"]["ranks_per_node"] = 9
    json.dump(bad, open(f"{tmp}/bad.json", "w", encoding="ascii"))
    code, _, err = run(*of_plan[:3], f"{tmp}/bad.json", *of_plan[4:])
    check(code == 1 and "layout.ranks_per_node = 9, but a node of H100 HGX has 8" in err, f"{code} {err}")
    code, _, err = run(*of_plan[:-3], MODELS / "grok-1.json", *of_plan[-2:])
    check(code == 1 and "expected 64" in err, f"{code} {err}")
    code, _, err = run(*of_plan[:4])
    check(code == 2 and "--cluster" in err, f"{code} {err}")


def traced(tmp):
    """Skewed routing costs; a copy slot wins some of it back."""
    must("ballast-trace", "gen", "--layers", 2, "--ranks", 1, "--experts", 8, "--steps", 4, "--zipf", 0.8,
         "-o", f"{tmp}/t.blt")
    step = {}
    for name, extra in (("even", ()), ("skewed", ("--trace", f"{tmp}/t.blt")),
                        ("copies", ("--trace", f"{tmp}/t.blt", "--copy-slots", 1))):
        code, out, err = search("mixtral-8x7b", "h100-hgx", "--ranks", 32, "--batch", 128, "--ep", 8, "--json", *extra)
        check(code == 0, err)
        step[name] = json.loads(out)["top"][0] if code == 0 else {"step_us": 0, "imbalance": 0}
    check(step["even"]["imbalance"] == 1 < step["copies"]["imbalance"] < step["skewed"]["imbalance"], f"{step}")
    check(step["even"]["step_us"] < step["copies"]["step_us"] < step["skewed"]["step_us"],
          f"{[s['step_us'] for s in step.values()]}")
    refused(1, ["8 experts", "256"], "deepseek-v3", "h100-hgx", "--ranks", 64, "--batch", 64, "--trace", f"{tmp}/t.blt")


def nothing_fits():
    refused(1, ["does not fit 64 ranks", "GB more than the 72.0 GB", "most of it", "devices of", "or 256 ranks"],
            "deepseek-v3", "h100-hgx", "--ranks", 64, "--batch", 512)
    code, _, err = search("deepseek-v3", "h100-hgx", "--ranks", 256, "--batch", 2048)
    check(code == 0, f"256 ranks, as advised: {err}")
    refused(1, ["no layout folds 7 ranks with a batch of 3", "dp does not divide the batch", "a batch of 7"],
            "mixtral-8x7b", "h100-hgx", "--ranks", 7, "--batch", 3, "--pp", 1, "--tp", 1)
    refused(1, ["no layout folds 64 ranks", "do not divide 64"], "mixtral-8x7b", "h100-hgx", "--ranks", 64, "--batch", 64,
            "--tp", 3)
    refused(1, ["ep does not divide the experts", "8 experts", "ep 16"], "mixtral-8x7b", "h100-hgx", "--ranks", 64,
            "--batch", 64, "--ep", 16)
    refused(1, ["fewer than 99999"], "mixtral-8x7b", "h100-hgx", "--ranks", 99999, "--batch", 3)
    refused(2, ["batch"], "mixtral-8x7b", "h100-hgx", "--ranks", 8)
    refused(1, ["a node of"], "mixtral-8x7b", "h100-hgx", "--ranks", 8, "--batch", 8, "--ranks-per-node", 9)
    refused(2, ["recompute"], "mixtral-8x7b", "h100-hgx", "--ranks", 8, "--batch", 8, "--recompute", "some")


def uneven(tmp):
    """Nodes that are not alike: fewer ranks that fold are named; slow and small devices get fewer layers; one is said."""
    def written(name, **more):
        text = json.load(open(CLUSTERS / "h100-hgx.json", encoding="ascii"))
        del text["nodes"], text["ranks_per_node"]
        text.update(more)
        json.dump(text, open(f"{tmp}/{name}.json", "w", encoding="ascii"))
        return ["search", "--model", MODELS / "deepseek-v3.json", "--cluster", f"{tmp}/{name}.json"]

    old = json.load(open(CLUSTERS / "a100-hgx.json", encoding="ascii"))
    groups = [{"nodes": 254, "ranks_per_node": 8}, {"nodes": 1, "ranks_per_node": 7}]
    short = written("short", node_groups=groups)
    code, _, err = run("ballast-plan", *short, "--batch", 8192)
    check(code == 1 and "no layout folds 2039 ranks" in err and "a batch of 10195, or 2016 ranks" in err, f"{code} {err}")
    must("ballast-plan", *short, "--batch", 8192, "--ranks", 2016, "--simulate", 0)
    code, _, err = run("ballast-plan", *short, "--batch", 8192, "--ranks", 2040)
    check(code == 1 and "has 2039 ranks, fewer than 2040: search on those" in err, f"{code} {err}")
    small = {"name": "small", **{key: old["device"][key] for key in ("tflops", "num_bytes", "memory_gbps", "efficiency", "call_us", "source")}}
    for memory in (20e9, None):  # with as much as was said, in the place of the small ones, it fits
        groups = [{"nodes": 1, "ranks_per_node": 8}, {"nodes": 1, "ranks_per_node": 8, "device": {**small, "memory_bytes": memory or would_do}}]
        found = written("small", node_groups=groups)
        found[2] = MODELS / "mixtral-8x7b.json"
        code, _, err = run("ballast-plan", *found, "--batch", 64, "--simulate", 0)
        if memory:
            said = re.search(r"; devices of (\d+) GB would do$", err.strip())
            check(code == 1 and said, f"{code} {err}")
            would_do = int(said[1]) * 1e9 if said else 1e9
        else:
            check(code == 0, f"what would do does not: {err}")
    groups = [{"nodes": 96, "ranks_per_node": 8},
              {"nodes": 32, "ranks_per_node": 8, "device": old["device"], "links": old["links"]}]
    start = cpu_seconds()
    mixed = [*written("mixed", node_groups=groups), "--batch", 8192, "-o", f"{tmp}/mixed_plan.json"]
    out = must("ballast-plan", *mixed, "--pp", 8, "--simulate", 10)
    print(f"DeepSeek-V3 on 768 H100 and 256 A100: {cpu_seconds() - start:.2f} s")
    check("costs by data sheet: all (H100 SXM 80GB: NVIDIA H100 data sheet" in out, out)
    check("H100 SXM 80GB: compute" in out and "A100 SXM 80GB: compute" in out, out)
    layout = json.load(open(f"{tmp}/mixed_plan.json", encoding="ascii"))["layout"]
    held = [sum(len(s) for s in layout["stages"][p::8]) for p in range(8)]  # the last two positions are A100s
    check(max(held[6:]) < min(held[:6]), f"layers of the positions: {held}")
    plan = must("ballast-plan", "simulate", "--plan", f"{tmp}/mixed_plan.json", "--model", MODELS / "deepseek-v3.json",
                "--cluster", f"{tmp}/mixed.json", "--json")
    predicted = json.load(open(f"{tmp}/mixed_plan.json", encoding="ascii"))["predicted"]["step_us"]
    check.near(json.loads(plan)["step_us"], predicted, 1e-6 * predicted, "simulated on uneven nodes")


def measured(tmp):
    """A profile's costs replace the cluster file's, and the plan says which; another type's or too fast ones are
    refused."""
    cluster = json.load(open(CLUSTERS / "h100-hgx.json", encoding="ascii"))
    cluster["device"]["num_bytes"], cluster["device"]["tflops"] = 4, 1
    json.dump(cluster, open(f"{tmp}/slow.json", "w", encoding="ascii"))
    must("ballast-profile", "--ranks", 1, "-o", f"{tmp}/profile.json")
    profile = json.load(open(f"{tmp}/profile.json", encoding="ascii"))
    common = ["ballast-plan", "search", "--model", MODELS / "mixtral-8x7b.json", "--ranks", 32, "--batch", 128, "--top", 1]
    out = json.loads(must(*common, "--cluster", f"{tmp}/slow.json", "--profile", f"{tmp}/profile.json", "--json"))
    check.near(out["efficiency"], profile["sgemm_gflops"] * 1e-3, 1e-6, "efficiency of the profile")
    check("large product" in out["efficiency_source"] and profile["device"] in out["efficiency_source"],
          out["efficiency_source"])
    text = must(*common, "--cluster", f"{tmp}/slow.json", "--profile", f"{tmp}/profile.json", "-o", f"{tmp}/measured.json")
    check("costs measured: embed_fwd attention_fwd gate_fwd" in text and "costs by data sheet: exchange" in text, text)
    costs = json.load(open(f"{tmp}/measured.json", encoding="ascii"))["search"]["costs"]
    check(costs == out["costs"] and [c["from"] for c in costs] == ["measured", "data sheet"], f"{costs}")
    check("expert_dw" in costs[0]["works"] and profile["device"] in costs[0]["source"], f"{costs}")
    check("between_nodes" in costs[1]["works"] and "all_reduce" in costs[1]["works"], "one rank measures no links")
    explained = must("ballast-plan", "explain", f"{tmp}/measured.json")
    check("costs measured: embed_fwd" in explained and "profile.json on" in explained, explained)
    of_plan = ["ballast-plan", "simulate", "--plan", f"{tmp}/measured.json", "--model", MODELS / "mixtral-8x7b.json",
               "--cluster", f"{tmp}/slow.json", "--profile", f"{tmp}/profile.json", "--json"]
    check.near(json.loads(must(*of_plan))["step_us"], out["top"][0]["step_us"], 1e-6 * out["top"][0]["step_us"], "simulated")
    profile["curves"]["expert_dw"]["times_us"] = [2 * us for us in profile["curves"]["expert_dw"]["times_us"]]
    json.dump(profile, open(f"{tmp}/slower.json", "w", encoding="ascii"))
    slower = json.loads(must(*common, "--cluster", f"{tmp}/slow.json", "--profile", f"{tmp}/slower.json", "--json"))
    check(slower["top"][0]["step_us"] > 1.1 * out["top"][0]["step_us"], "experts twice as slow do not show")
    check(f"compute: {out['efficiency']:.3f} of 1 TFLOP/s (a large product on" in text, text)
    profile["sgemm_gflops"] = 1001
    json.dump(profile, open(f"{tmp}/fast.json", "w", encoding="ascii"))
    for path, options, parts in ((f"{tmp}/profile.json", (), ["4 bytes", "H100 HGX computes with 2"]),
                                 (f"{tmp}/fast.json", ("--cluster", f"{tmp}/slow.json"), ["more than the peak"])):
        code, _, err = run(*common, *(options or ("--cluster", CLUSTERS / "h100-hgx.json")), "--profile", path)
        check(code == 1 and all(part in err for part in parts), f"{path}: exit {code}, {err!r}")


def too_large(tmp):
    """Clusters, plans and profiles beyond what is searched, simulated or drawn: one sentence, at once."""
    def dump(name, content):
        json.dump(content, open(f"{tmp}/{name}.json", "w", encoding="ascii"))
        return f"{tmp}/{name}.json"

    def said(parts, *command):
        code, out, err = run("ballast-plan", *command, timeout=60)
        check(code == 1 and out == "" and err.count("\n") == 1 and all(part in err for part in parts), f"{command}: exit {code}, {err!r}")

    mixtral, hgx = MODELS / "mixtral-8x7b.json", CLUSTERS / "h100-hgx.json"
    text = json.load(open(hgx, encoding="ascii"))
    huge = dump("huge", {**text, "nodes": 1 << 18})
    search_huge = ["search", "--model", mixtral, "--cluster", huge, "--batch", 64]
    said(["H100 HGX has 2097152 ranks", "--ranks"], *search_huge)
    must("ballast-plan", *search_huge, "--ranks", 64, "--simulate", 0)
    lean = dump("lean", {**text, "nodes": 1 << 18, "device": {**text["device"], "memory_bytes": 5e11}})
    said(["does not fit 1048576 ranks"], "search", "--model", mixtral, "--cluster", lean, "--batch", 1 << 20, "--ranks", 1 << 20, "--zero", 0,
         "--micro-batch", 1, *(word for size in ("tp", "cp", "pp", "ep", "etp") for word in (f"--{size}", 1)))
    said(["9 copy slots", "8 experts"], "search", "--model", mixtral, "--cluster", hgx, "--ranks", 8, "--batch", 64, "--copy-slots", 9)
    layout = {"tp": 1, "cp": 1, "dp": 8, "pp": 1, "vp": 1, "etp": 1, "ep": 8, "edp": 1, "zero": 1, "micro_batch": 1, "micro_batches": 1,
              "stages": [list(range(32))]}
    trace = f"{tmp}/eight.blt"
    must("ballast-trace", "gen", "--layers", 2, "--ranks", 1, "--experts", 8, "--steps", 2, "-o", trace)
    for cluster, change, parts, more in ((huge, {"dp": 1 << 20, "ep": 1 << 20}, ["layout.ep = 1048576", "8 experts"], ["--trace", trace]),
                                         (hgx, {"copy_slots": 9}, ["layout.copy_slots", "8 experts, found 9"], []),
                                         (hgx, {"micro_batches": 1 << 20}, ["layout.micro_batches", "--perfetto"], ["--perfetto", f"{tmp}/never"])):
        plan = dump("large", {"version": 1, "layout": {**layout, **change}})
        said([plan, *parts], "simulate", "--plan", plan, "--model", mixtral, "--cluster", cluster, *more)
    check(not os.path.exists(f"{tmp}/never"), "a timeline is left behind")
    few = dump("few", {"version": 1, "layout": {**layout, "micro_batches": 4}})
    must("ballast-plan", "simulate", "--plan", few, "--model", mixtral, "--cluster", hgx, "--perfetto", f"{tmp}/drawn")


def profile_shapes(tmp):
    """Sizes of a profile's model that it cannot have been measured with: named, with the file."""
    profile = {"version": 1, "backend": "cuda", "transport": "nccl", "device": "d", "ranks": 8, "overlap": True, "num_bytes": 2,
               "sgemm_gflops": 6e5, "triad_gbps": 2800, "curves": {},
               "model": {"hidden": 4096, "vocabulary": 32000, "sequence": 4096, "heads": 32, "experts": 8, "top_k": 2, "expert_width": 14336,
                         "ffn_width": 14336}}
    units = {"expert_fwd": "rows", "scatter": "choices", "attention_fwd": "tokens"}
    for key, curve, part in (("hidden", None, "model.hidden"), ("vocabulary", None, "model.vocabulary"), ("sequence", None, "model.sequence"),
                             ("heads", None, "model.heads"), ("experts", "expert_fwd", "model.experts"), ("top_k", "scatter", "model.top_k"),
                             ("top_k", "expert_fwd", "model.top_k"), ("experts", "attention_fwd", "model.experts"), ("top_k", "attention_fwd", None), (None, "expert_fwd", None)):
        model = {**profile["model"], **({key: 0} if key else {})}
        curves = {curve: {"per": units[curve], "amounts": [1024, 4096], "times_us": [900, 3000]}} if curve else {}
        json.dump({**profile, "model": model, "curves": curves}, open(f"{tmp}/shape.json", "w", encoding="ascii"))
        code, out, err = search("mixtral-8x7b", "h100-hgx", "--ranks", 64, "--batch", 64, "--simulate", 0, "--profile", f"{tmp}/shape.json")
        check(code == 0 if not part else code == 1 and out == "" and part in err and "shape.json" in err and "nan" not in err,
              f"{key} 0 with {curve}: exit {code}, {err!r}")


def racks_as_fast_as_nodes(tmp):
    """Racks of one node each whose links are those between nodes change nothing, however uneven they are."""
    text = json.load(open(CLUSTERS / "h100-hgx.json", encoding="ascii"))
    del text["nodes"], text["ranks_per_node"]
    text["device"]["memory_bytes"] = 8e11
    text["node_groups"] = [{"nodes": 1, "ranks_per_node": n} for n in (1, 7)]
    steps = []
    for more in ({}, {"racks": {**text["links"]["inter"], "nodes": 1}}):
        json.dump({**text, "links": {**text["links"], **more}}, open(f"{tmp}/racks.json", "w", encoding="ascii"))
        out = must("ballast-plan", "search", "--model", MODELS / "mixtral-8x7b.json", "--cluster", f"{tmp}/racks.json", "--batch", 64, "--ep", 8,
                   "--tp", 1, "--simulate", 0, "--json")
        steps.append(json.loads(out)["top"][0]["step_us"])
    check.near(steps[1], steps[0], 1e-9 * steps[0], "racks as fast as nodes")


def state_space(tmp):
    """A model of single blocks gets a plan, simulated as any other's."""
    code, out, err = search("nemotron-3-nano-30b-a3b", "gb200-nvl72", "--ranks", 16, "--ranks-per-node", 16, "--batch", 1024,
                            "--type", "fp8", "-o", f"{tmp}/hybrid.json")
    check(code == 0 and "products with weights in fp8: 0.340 of 4900 TFLOP/s (assumed" in out, f"exit {code}: {out} {err}")
    stages = json.load(open(f"{tmp}/hybrid.json", encoding="ascii"))["layout"]["stages"]
    check(sorted(sum(stages, [])) == list(range(52)), f"{stages}")
    check("layouts simulated" in out, out)
    model, cluster = MODELS / "nemotron-3-nano-30b-a3b.json", CLUSTERS / "h100-hgx.json"
    for more in ((), ("--cp", 2)):
        must("ballast-plan", "search", "--model", model, "--cluster", cluster, "--ranks", 64, "--batch", 128, *more, "-o",
             f"{tmp}/blocks.json")
        wanted = json.load(open(f"{tmp}/blocks.json", encoding="ascii"))["predicted"]["step_us"]
        result = json.loads(must("ballast-plan", "simulate", "--plan", f"{tmp}/blocks.json", "--model", model, "--cluster",
                                 cluster, "--json"))
        check.near(result["step_us"], wanted, 1e-6 * wanted, f"{more}")
    phases = json.loads(must("ballast-plan", "simulate", "--ranks", 8, "--batch", 8, "--model", model, "--cluster", cluster,
                             "--json"))["phases"]
    check(phases["state_space_bwd"] > phases["state_space_fwd"] > 0, f"{phases}")
    refused(1, ["one of its device.types (fp8)", "fp3"], "mixtral-8x7b", "h100-hgx", "--ranks", 8, "--batch", 8, "--type",
            "fp3")


def many_ranks(tmp):
    start = cpu_seconds()
    code, out, err = search("deepseek-v3", "h100-hgx", "--ranks", 16384, "--batch", 16384, "--json")
    seconds = cpu_seconds() - start
    print(f"DeepSeek-V3 on 16384 H100: {seconds:.2f} s")
    check(code == 0 and seconds < 60, f"exit {code}, {seconds} s: {err}")
    text = json.load(open(CLUSTERS / "h100-hgx.json", encoding="ascii"))
    old = json.load(open(CLUSTERS / "a100-hgx.json", encoding="ascii"))
    del text["nodes"], text["ranks_per_node"]
    text["node_groups"] = [{"nodes": 1200, "ranks_per_node": 8}, {"nodes": 1, "ranks_per_node": 7},
                           {"nodes": 900, "ranks_per_node": 8, "device": old["device"], "links": old["links"]}]
    text["links"]["racks"] = {"nodes": 32, "gbps": 12.5, "latency_us": 25, "source": "made up"}
    json.dump(text, open(f"{tmp}/many.json", "w", encoding="ascii"))
    start = cpu_seconds()
    code, out, err = run("ballast-plan", "search", "--model", MODELS / "deepseek-v3.json", "--cluster", f"{tmp}/many.json",
                         "--ranks", 16384, "--batch", 16384, "--simulate", 20, "--json")
    seconds, kilobytes = cpu_seconds() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"DeepSeek-V3 on 16384 uneven ranks: {seconds:.2f} s, {kilobytes / 1024:.0f} MB")
    check(code == 0 and seconds < 60 and kilobytes < 2e6, f"exit {code}, {seconds} s, {kilobytes} kB: {err}")


with folder() as tmp:
    best_plan(tmp)
    traced(tmp)
    measured(tmp)
    uneven(tmp)
    state_space(tmp)
    too_large(tmp)
    profile_shapes(tmp)
    racks_as_fast_as_nodes(tmp)
    simulated(tmp)
    many_ranks(tmp)
nothing_fits()
sys.exit(check.end())
