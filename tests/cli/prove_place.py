#!/usr/bin/env python3
"""ballast-plan place --prove: small layers against full enumeration, every placement rechecked from the plan file by Hall's
condition (no flow, no linear program), and on the recorded trace how many layers are proved within five seconds."""
import itertools
import json
import math
import os
import sys
import tarfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support.tools import DATA, Check, folder, made_up, must, read_csv, run, write_trace  # noqa: E402

check = Check()
SIZE = {ranks: np.array([max(1, bin(s).count("1")) for s in range(1 << ranks)]) for ranks in (2, 3, 4, 8, 16)}


def best_imbalance(load, masks, ranks):
    """The largest load that a set of ranks alone hosts over its size, in units of the mean."""
    inside = np.zeros(1 << ranks)
    np.add.at(inside, masks, load)
    for r in range(ranks):  # sums over subsets
        view = inside.reshape(-1, 2, 1 << r)
        view[:, 1] += view[:, 0]
    return (inside / SIZE[ranks]).max() / (load.sum() / ranks)


def enumerate_fewest(load, ranks, slots, within, homes):
    """Fewest copies by trying every set of hosts, None where there is no placement."""
    sets = range(1, 1 << ranks)
    choices = [[m for m in sets if homes is None or m >> homes[e] & 1] for e in range(len(load))]
    masks = np.array(list(itertools.product(*choices)))
    held = np.stack([(masks >> r & 1).sum(1) for r in range(ranks)])
    good = (held <= slots).all(0)
    limit = within * (1 + 1e-9) * load.sum() / ranks
    for s in sets:
        good &= ((masks & ~s == 0) * load).sum(1) <= SIZE[ranks][s] * limit
    return int((held.sum(0) - len(load))[good].min()) if good.any() else None


def place(trace, plan, *options):
    return json.loads(must("ballast-plan", "place", "--trace", trace, "-o", plan, "--json", *options))


def recheck(result, plan_path, load, ranks, slots, within, contiguous, name):
    """Every layer's placement as the plan file has it: slots, homes, copies, imbalance."""
    with open(plan_path, encoding="utf-8") as file:
        layers = json.load(file)["placement"]["layers"]
    for proof, layer, weights in zip(result["prove"]["layers"], layers, load):
        if proof["copies"] is None:
            continue
        masks = np.array([1 << h for h in layer["home"]])
        for copy in layer["copies"]:
            masks[copy["expert"]] |= 1 << copy["rank"]
        here = f"{name} layer {layer['layer']}"
        held = [int((masks >> r & 1).sum()) for r in range(ranks)]
        check(max(held) <= slots, f"{here}: {held} experts, {slots} slots")
        check(len(layer["copies"]) <= proof["copies"], f"{here}: {len(layer['copies'])} copies in the plan")
        true = best_imbalance(weights, masks, ranks)
        check(true <= within * (1 + 1e-7), f"{here}: imbalance {true}")
        check(abs(layer["imbalance"] - true) < 1e-6, f"{here}: {layer['imbalance']}, recomputed {true}")
        if contiguous:
            k = math.ceil(len(weights) / ranks)
            check(layer["home"] == [e // k for e in range(len(weights))], f"{here}: homes moved")


def small(tmp):
    trace, plan = f"{tmp}/small.blt", f"{tmp}/small.json"
    for seed, ranks, slots in ((1, 3, 3), (2, 3, 4), (3, 2, 4), (4, 3, 2)):
        counts = made_up(seed, steps=1, ranks=2, layers=12, experts=6, skew=1.5)
        write_trace(trace, counts)
        load = counts.sum((0, 1, 3)).astype(float)
        for within, homes in itertools.product((1.0, 1.05, 1.2), ("fixed", "free")):
            result = place(trace, plan, "--ranks", ranks, "--slots", slots, "--homes", homes, "--prove", 20, "--within", within)
            k = math.ceil(6 / ranks)
            given = [e // k for e in range(6)] if homes == "fixed" else None
            for proof, weights in zip(result["prove"]["layers"], load):
                truth = enumerate_fewest(weights, ranks, slots, within, given)
                here = f"seed {seed}, {homes}, within {within}, layer {proof['layer']}"
                if proof["solver"] == "not in this build":
                    check(truth is None or proof["bound"] <= truth, f"{here}: {proof}, truth {truth}")
                    continue
                check(proof["status"] == ("optimal" if truth is not None else "infeasible"), f"{here}: {proof}")
                check(proof["copies"] == truth, f"{here}: {proof}, truth {truth}")
            recheck(result, plan, load, ranks, slots, within, homes == "fixed", f"seed {seed} {homes} {within}")


def words(tmp):
    trace = f"{tmp}/words.blt"
    write_trace(trace, made_up(5, steps=2, ranks=2, layers=2, experts=8))
    for code, part, options in ((2, "--prove", ("--prove", 0)), (2, "--within", ("--prove", 1, "--within", 0.9)),
                                (2, "goes with --prove", ("--within", 1.1)),
                                (2, "--policy ballast", ("--prove", 1, "--policy", "eplb:1")),
                                (2, "--prove", ("--prove", "nan"))):
        found, out, err = run("ballast-plan", "place", "--trace", trace, "--ranks", 4, *options)
        check(found == code and part in err and not out, f"{options}: exit {found}: {err!r}")
    text = must("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--prove", 5)
    check("fewest copies with an imbalance of at most 1.05, homes free" in text and " of 2 layers proved" in text, text)


def recorded(tmp):
    archive = DATA / "smartmoe_moe_trace_1-2491.tar.xz"
    if not archive.exists():
        return check.skip("the recorded trace is not in ../shared/data")
    steps = range(121, 2491, 590)
    with tarfile.open(archive) as file:
        wanted = tuple(f"table_iter{s}_" for s in steps)
        for member in file:
            name = os.path.basename(member.name)
            if name.startswith(wanted):
                with open(f"{tmp}/text/{name}", "wb") as out:
                    out.write(file.extractfile(member).read())
    trace, plan = f"{tmp}/recorded.blt", f"{tmp}/recorded.json"
    must("ballast-trace", "import", "--from", "smartmoe", f"{tmp}/text", "-o", trace)
    must("ballast-trace", "export", trace, "--to", "csv", "-o", f"{tmp}/recorded.csv")
    numbers, counts = read_csv(f"{tmp}/recorded.csv")
    load = counts.sum((2, 3)).astype(float)
    for ranks, within, homes in itertools.product((8, 16), (1.05, 1.1), ("fixed", "free")):
        if (ranks, within) not in ((8, 1.05), (16, 1.1)):
            continue
        proofs = []
        for i, step in enumerate(numbers):
            result = place(trace, plan, "--steps", f"{step}:{step}", "--ranks", ranks, "--homes", homes, "--prove", 5,
                           "--within", within)
            recheck(result, plan, load[i], ranks, 32 // ranks + 1, within, homes == "fixed", f"{ranks} {homes} step {step}")
            proofs += result["prove"]["layers"]
        proved = np.mean([p["status"] == "optimal" and p["seconds"] <= 5.3 for p in proofs])
        copies, seconds = np.mean([p["copies"] for p in proofs]), [p["seconds"] for p in proofs]
        print(f"{ranks} ranks, within {within}, homes {homes}: {len(proofs)} layers, {100 * proved:.1f} % proved, "
              f"{copies:.2f} copies, {np.mean(seconds):.4f} s mean, {max(seconds):.2f} s worst")
        check(proved >= 0.95, f"{ranks} ranks, {homes}: only {proved} proved")


with folder() as tmp_folder:
    os.mkdir(f"{tmp_folder}/text")
    words(tmp_folder)
    small(tmp_folder)
    recorded(tmp_folder)
sys.exit(check.end())
