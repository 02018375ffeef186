#!/usr/bin/env python3
"""ballast-plan on input that is wrong, odd or hostile: one sentence, the right exit code, nothing half-written; and what
place, check and explain print on good input."""
import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support import rules  # noqa: E402
from plan_support.tools import Check, folder, made_up, must, run, write_trace  # noqa: E402

check = Check()


def refused(code, part, *arguments, absent=None):
    found, out, err = run("ballast-plan", *arguments)
    lines = [line for line in err.splitlines() if line]
    name = " ".join(map(str, arguments))
    check(found == code and part in err and lines and lines[0].startswith("ballast-plan: ") and out == "",
          f"{name}: exit {found}, expected {code} with \"{part}\": {err!r} {out[:80]!r}")
    if absent:
        check(not os.path.exists(absent), f"{name}: leaves {absent}")


def command_lines(trace, tmp):
    refused(2, "ranks", "replay", "--trace", trace, "--ranks", 0)
    refused(1, "16 experts, too few for 17 ranks", "replay", "--trace", trace, "--ranks", 17)
    refused(1, "16 experts, too few for 17 ranks", "place", "--trace", trace, "--ranks", 17)
    refused(2, "--slots 5,5", "replay", "--trace", trace, "--ranks", 4, "--slots", "5,5")
    refused(2, "--slots 99", "replay", "--trace", trace, "--ranks", 4, "--slots", "99")
    refused(2, "--slots x", "replay", "--trace", trace, "--ranks", 4, "--slots", "x")
    refused(1, "cannot hold 16 experts", "replay", "--trace", trace, "--ranks", 4, "--slots", "3")
    refused(2, "smartmoe:N", "replay", "--trace", trace, "--ranks", 4, "--policy", "smartmoe")
    refused(2, "eplb:N", "replay", "--trace", trace, "--ranks", 4, "--policy", "eplb:0")
    refused(2, "--policy best", "replay", "--trace", trace, "--ranks", 4, "--policy", "best")
    refused(2, "ballast alone", "replay", "--trace", trace, "--ranks", 4, "--policy", "static", "--homes", "free")
    refused(2, "ballast alone", "replay", "--trace", trace, "--ranks", 4, "--policy", "static", "--late-repair", 1.02)
    refused(2, "smartmoe alone", "replay", "--trace", trace, "--ranks", 4, "--ties", "numpy")
    refused(2, "--late-repair needs --shares fresh", "replay", "--trace", trace, "--ranks", 4, "--late-repair", 1.02,
            "--shares", "stale")
    refused(2, "--late-repair 0.5", "replay", "--trace", trace, "--ranks", 4, "--late-repair", 0.5)
    refused(2, "lag", "replay", "--trace", trace, "--ranks", 4, "--lag", -1)
    refused(2, "--steps", "replay", "--trace", trace, "--ranks", 4, "--steps", "9:1")
    refused(1, "no step within", "replay", "--trace", trace, "--ranks", 4, "--steps", "1000:2000")
    refused(1, "layers 0 to 2", "replay", "--trace", trace, "--ranks", 4, "--layers", "1,3")
    refused(1, "ascending", "replay", "--trace", trace, "--ranks", 4, "--layers", "1,1")
    refused(2, "--layers", "replay", "--trace", trace, "--ranks", 4, "--layers", "1,")
    refused(1, "--source-rank 4", "replay", "--trace", trace, "--ranks", 4, "--source-rank", 4)
    refused(1, "--micro-batch 2", "replay", "--trace", trace, "--ranks", 4, "--micro-batch", 2)
    refused(2, "expected one of them", "replay", "--trace", trace, "--ranks", 4, "--micro-batch", 1, "--micro-batches", "sum")
    refused(1, "/nonexistent/d", "replay", "--trace", trace, "--ranks", 4, "--dump", "/nonexistent/d.jsonl")
    refused(1, "/nonexistent/p", "place", "--trace", trace, "--ranks", 4, "-o", "/nonexistent/p.json")
    refused(1, "nowhere.blt", "replay", "--trace", f"{tmp}/nowhere.blt", "--ranks", 4)
    with open(f"{tmp}/foreign.blt", "wb") as file:
        file.write(b"not a trace at all")
    refused(1, "foreign.blt", "place", "--trace", f"{tmp}/foreign.blt", "--ranks", 4, "-o", f"{tmp}/p.json",
            absent=f"{tmp}/p.json")
    damaged = bytearray(open(trace, "rb").read())
    damaged[len(damaged) // 2] ^= 0x10
    with open(f"{tmp}/damaged.blt", "wb") as file:
        file.write(damaged)
    code, _, err = run("ballast-plan", "replay", "--trace", f"{tmp}/damaged.blt", "--ranks", 4, "--dump", f"{tmp}/d.jsonl")
    check(code == 1 and "damaged.blt" in err and not os.path.exists(f"{tmp}/d.jsonl"), f"a damaged block: {code} {err!r}")
    check(not [name for name in os.listdir(tmp) if ".tmp" in name], "no temporary file stays")


def homes_alone(tmp):
    """No copy slots, mild load: the plan is as good as its bound says it can be, and checks."""
    must("ballast-trace", "gen", "-o", f"{tmp}/mild.blt", "--zipf", 0.05, "--experts", 32, "--layers", 3, "--steps", 2)
    result = json.loads(must("ballast-plan", "place", "--trace", f"{tmp}/mild.blt", "--ranks", 8, "--slots", 4, "--json",
                             "-o", f"{tmp}/mild.json"))
    check(result["gap"] == 0 and 1 <= result["bound"] < 1.2, f"homes alone are proved: {result}")
    must("ballast-plan", "check", f"{tmp}/mild.json", "--trace", f"{tmp}/mild.blt")


def plans(trace, tmp):
    plan, other = f"{tmp}/plan.json", f"{tmp}/other.json"
    for ranks, slots in ((4, "5"), (5, "4"), (3, "6,7,6"), (16, "2"), (1, "16"), (4, "4"), (4, "2,5,6,6")):
        for options in ([], ["--homes", "fixed"], ["--policy", "eplb:1"], ["--policy", "static"]):
            if slots == "16" and options:
                continue
            result = json.loads(must("ballast-plan", "place", "--trace", trace, "--ranks", ranks, "--slots", slots, "-o", plan,
                                     "--json", *options))
            check(result["gap"] >= 0 and result["imbalance"] >= result["bound"] - 1e-9, f"{ranks}/{slots} {options}: {result}")
            if not options and slots in ("5", "6,7,6", "2"):
                check(result["imbalance"] < 1 + 1e-6, f"{ranks}/{slots}: perfect with a copy slot a rank")
            must("ballast-plan", "check", plan, "--trace", trace)
            text = must("ballast-plan", "explain", plan, "--layer", -1)
            check("Balance:" in text and "Layer 2:" in text and "rank 0: home of" in text, "explain says it")
            saved = json.load(open(plan, encoding="utf-8"))
            worst = max(layer["imbalance"] for layer in saved["placement"]["layers"])
            check(abs(saved["predicted"]["imbalance"] - worst) < 1e-8, "the total is the worst layer's")
    must("ballast-plan", "place", "--trace", trace, "--ranks", 4, "-o", plan)
    counts = made_up(5).sum(axis=(0, 1, 3))
    for layer in json.load(open(plan, encoding="utf-8"))["placement"]["layers"]:
        copies = [(c["expert"], c["rank"], c["share"]) for c in layer["copies"]]
        check(abs(rules.imbalance(layer["home"], copies, counts[layer["layer"]], 4) - 1) < 1e-6, "the plan's shares balance")
    text = open(plan, encoding="utf-8").read()
    write_trace(f"{tmp}/small.blt", made_up(1, steps=2, experts=8))
    refused(1, "places 16 experts", "check", plan, "--trace", f"{tmp}/small.blt")
    write_trace(f"{tmp}/short.blt", made_up(1, steps=2, layers=2))
    refused(1, "places layer 2", "check", plan, "--trace", f"{tmp}/short.blt")
    random.seed(3)
    crashed = 0
    for i in range(60):
        bad = text[:random.randrange(len(text))] if i % 2 else text.replace(random.choice("0123456789"), random.choice("-x[\""), 1)
        with open(other, "w", encoding="utf-8") as file:
            file.write(bad)
        code, _, err = run("ballast-plan", "check", other)
        crashed += code not in (0, 1) or (code == 1 and "other.json" not in err)
    check(crashed == 0, f"{crashed} of 60 damaged plans end otherwise than with a sentence")


with folder() as scratch:
    trace_path = f"{scratch}/t.blt"
    write_trace(trace_path, made_up(5))
    command_lines(trace_path, scratch)
    homes_alone(scratch)
    plans(trace_path, scratch)
sys.exit(check.end())
