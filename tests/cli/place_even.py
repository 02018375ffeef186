#!/usr/bin/env python3
"""ballast-plan place --split even: the plan read back and recomputed, EPLB's rule against our PyTorch code of it, and how much of
its excess is left."""
import json
import math
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support.tools import Check, folder, made_up, must, read_csv, run, write_trace  # noqa: E402

check = Check()


def place(trace, plan, *options):
    result = json.loads(must("ballast-plan", "place", "--trace", trace, "-o", plan, "--json", *options))
    with open(plan, encoding="utf-8") as file:
        return result, json.load(file)["placement"]


def fractions(layer, ranks):
    """What every rank takes of every expert."""
    part = np.zeros((ranks, len(layer["home"])))
    for copy in layer["copies"]:
        part[copy["rank"], copy["expert"]] += copy["share"]
    for e, home in enumerate(layer["home"]):
        part[home, e] += 1 - part[:, e].sum()
    return part


def recheck(placement, result, load, slots, here):
    """Slots, whole replicas, imbalance and bound of every layer; the excess over the mean."""
    ranks, excess = placement["ranks"], []
    check(placement["split"] == "even", f"{here}: the plan does not say how shares were split")
    for layer, told, weights in zip(placement["layers"], result["layers"], load):
        part = fractions(layer, ranks)
        check((part >= -1e-12).all() and np.allclose(part.sum(0), 1), f"{here}: shares do not sum to one")
        check(((part > 0).sum(1) <= slots).all(), f"{here}: a rank holds more than its slots")
        least = sum(next(n for n in range(1, 200) if np.abs(column * n - np.round(column * n)).max() < 1e-6)
                    for column in part.T.copy())
        check(least <= np.sum(slots), f"{here}: shares need {least} replicas, there are {np.sum(slots)} slots")
        true = (part @ weights).max() * ranks / weights.sum()
        check(abs(true - layer["imbalance"]) < 1e-7, f"{here}: {layer['imbalance']}, recomputed {true}")
        check(abs(told["imbalance"] - true) < 1e-7 and layer["bound"] <= true + 1e-7, f"{here}: {told}, {layer['bound']}")
        excess.append(true - 1)
    return np.array(excess)


def loads_of(trace, tmp):
    must("ballast-trace", "export", trace, "--to", "csv", "-o", f"{tmp}/loads.csv")
    return read_csv(f"{tmp}/loads.csv")[1].sum((0, 2, 3)).astype(float)


def small(tmp):
    trace, plan = f"{tmp}/small.blt", f"{tmp}/small.json"
    for seed, experts, ranks, slots in ((1, 6, 3, "3"), (2, 16, 4, "5"), (3, 16, 4, "4,5,6,7"), (4, 10, 4, "3"), (5, 16, 4, "4")):
        write_trace(trace, made_up(seed, steps=2, ranks=2, layers=6, experts=experts, skew=1.5))
        load = loads_of(trace, tmp)
        each = np.array([int(s) for s in slots.split(",")] * (1 if "," in slots else ranks))
        result, placement = place(trace, plan, "--ranks", ranks, "--slots", slots, "--split", "even")
        ours = recheck(placement, result, load, each, f"{experts} experts, slots {slots}")
        theirs = [layer["imbalance"] - 1 for layer in
                  place(trace, plan, "--ranks", ranks, "--slots", slots, "--policy", "eplb:1")[0]["layers"]]
        check((ours <= np.array(theirs) + 1e-7).all(), f"{experts} experts, slots {slots}: EPLB's rule is more even")
        homes = [e // math.ceil(experts / ranks) for e in range(experts)]
        for layer in placement["layers"]:
            part = fractions(layer, ranks)
            for e, home in enumerate(layer["home"]):
                hosts = np.nonzero(part[:, e] > 1e-9)[0]
                check(home == (homes[e] if homes[e] in hosts else hosts[0]), f"expert {e} has its home on rank {home}")
    must("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--split", "even", "-o", plan)
    check("Split: even" in must("ballast-plan", "explain", plan), "explain says nothing of the split")
    check("sound" in must("ballast-plan", "check", plan, "--trace", trace), "check refuses the plan")


def much_closer(tmp):
    """Loads drawn by the generator of traces: sampled tokens, not rounded popularities."""
    trace, plan = f"{tmp}/large.blt", f"{tmp}/large.json"
    for ranks, zipf, seed in ((32, 0.3, 11), (32, 0.7, 12), (64, 0.3, 13), (64, 0.7, 14)):
        must("ballast-trace", "gen", "--experts", 256, "--layers", 16, "--ranks", 4, "--steps", 1, "--zipf", zipf, "--seed", seed,
             "-o", trace)
        load, slots = loads_of(trace, tmp), 256 // ranks + 1
        result, placement = place(trace, plan, "--ranks", ranks, "--split", "even")
        ours = recheck(placement, result, load, np.full(ranks, slots), f"256 on {ranks}").mean()
        theirs = np.mean([layer["imbalance"] - 1 for layer in
                          place(trace, plan, "--ranks", ranks, "--policy", "eplb:1")[0]["layers"]])
        print(f"256 experts on {ranks} ranks, Zipf {zipf}: excess {ours:.6f}, EPLB's {theirs:.6f}, {theirs / ours:.1f} times")
        check(ours * 5 <= theirs, f"256 on {ranks}, Zipf {zipf}: {theirs / ours} times")


def against_pytorch(tmp):
    """place --policy eplb:1 is EPLB's rule, replica by replica."""
    try:
        import torch
    except ImportError:
        return check.skip("PyTorch is not installed")
    from peer import eplb_torch
    trace, plan = f"{tmp}/peer.blt", f"{tmp}/peer.json"
    for seed, experts, ranks, slots in ((1, 16, 4, 5), (2, 32, 8, 5), (3, 32, 16, 3), (4, 64, 8, 10), (5, 24, 8, 4)):
        write_trace(trace, made_up(seed, steps=1, ranks=2, layers=8, experts=experts, skew=1.2, tokens=99991))
        load = loads_of(trace, tmp)
        _, placement = place(trace, plan, "--ranks", ranks, "--slots", slots, "--policy", "eplb:1")
        replicas = eplb_torch.place(load, ranks, ranks * slots, dtype=torch.float64).numpy()
        for layer, there, weights in zip(placement["layers"], replicas, load):
            part = fractions(layer, ranks)
            check(np.allclose(part, there / there.sum(0), atol=1e-7), f"{experts} on {ranks}, layer {layer['layer']}: differs")
            check(abs(layer["imbalance"] - ((there / there.sum(0)) @ weights).max() * ranks / weights.sum()) < 1e-7,
                  f"{experts} on {ranks}: imbalance")


def words(tmp):
    trace = f"{tmp}/words.blt"
    write_trace(trace, made_up(5, steps=2, ranks=2, layers=2, experts=8))
    for part, options in (("--split even", ("--policy", "eplb:1")), ("--split even", ("--prove", 1)),
                          ("--split even", ("--homes", "free"))):
        found, out, err = run("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--split", "even", *options)
        check(found == 2 and part in err and not out, f"{options}: exit {found}: {err!r}")
    found, out, err = run("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--split", "odd")
    check(found == 2 and "--split" in err and not out, f"exit {found}: {err!r}")
    plan = f"{tmp}/words.json"
    must("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--split", "even", "-o", plan)
    with open(plan, encoding="utf-8") as file:
        text = file.read()
    with open(plan, "w", encoding="utf-8") as file:
        file.write(text.replace('"even"', '"odd"'))
    found, out, err = run("ballast-plan", "check", plan)
    check(found == 1 and 'expected "even"' in err and not out, f"exit {found}: {err!r}")


with folder() as tmp_folder:
    words(tmp_folder)
    small(tmp_folder)
    much_closer(tmp_folder)
    against_pytorch(tmp_folder)
sys.exit(check.end())
