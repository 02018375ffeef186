#!/usr/bin/env python3
"""ballast-plan place --prove: small layers against full enumeration, with homes free, fixed and moving at a price, ranks of
different speeds and slots; every placement rechecked from the plan file by Hall's condition (no flow, no linear program). A
solver process that is killed, hangs or has no memory. How many layers of the recorded trace are proved within five seconds.
time limit: 400 s"""
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support.tools import BUILD, DATA, Check, folder, made_up, must, read_csv, run, write_trace  # noqa: E402

check = Check()


def speed_of_sets(ranks, speed):
    """Sum of the speeds of every set of ranks, scaled so that all sum to their number."""
    speed = np.ones(ranks) if speed is None else np.array(speed) * ranks / np.sum(speed)
    total = np.zeros(1 << ranks)
    for r in range(ranks):
        total[1 << r:2 << r] = total[:1 << r] + speed[r]
    total[0] = 1
    return total


def best_imbalance(load, masks, ranks, speed=None):
    """The largest load that a set of ranks alone hosts over its speed, in units of the mean."""
    inside = np.zeros(1 << ranks)
    np.add.at(inside, masks, load)
    for r in range(ranks):  # sums over subsets
        view = inside.reshape(-1, 2, 1 << r)
        view[:, 1] += view[:, 0]
    return (inside / speed_of_sets(ranks, speed)).max() / (load.sum() / ranks)


def enumerate_least(load, ranks, slots, within, homes=None, current=None, move_price=0, speed=None):
    """Least copies + price of moves by trying every set of hosts, None where there is no placement."""
    sets, size = range(1, 1 << ranks), speed_of_sets(ranks, speed)
    choices = [[m for m in sets if homes is None or m >> homes[e] & 1] for e in range(len(load))]
    masks = np.array(list(itertools.product(*choices)))
    held = np.stack([(masks >> r & 1).sum(1) for r in range(ranks)])
    good = (held <= np.broadcast_to(slots, ranks)[:, None]).all(0)
    limit = within * (1 + 1e-9) * load.sum() / ranks
    for s in sets:
        good &= ((masks & ~s == 0) * load).sum(1) <= size[s] * limit
    price = held.sum(0) - len(load)
    if current is not None:
        price = price + move_price * (masks >> np.array(current) & 1 == 0).sum(1)
    return float(price[good].min()) if good.any() else None


def place(trace, plan, *options):
    return json.loads(must("ballast-plan", "place", "--trace", trace, "-o", plan, "--json", *options))


def recheck(result, plan_path, load, ranks, slots, within, contiguous, name, current=None, speed=None):
    """Every layer's placement as the plan file has it: slots, homes, copies, moves, imbalance, and what it says was proved."""
    with open(plan_path, encoding="utf-8") as file:
        layers = json.load(file)["placement"]["layers"]
    for proof, layer, weights in zip(result["prove"]["layers"], layers, load):
        said = layer["proved"]
        same = ("proof", "solver", "bound") + (("copies", "moves", "price") if proof["copies"] is not None else ())
        check(all(said[key] == proof[key] for key in same) and said["within"] == within, f"{name}: {said}, {proof}")
        check(("reason" in said) == bool(proof["reason"] or proof["status"] == "infeasible"), f"{name}: {said}, {proof}")
        if proof["copies"] is None:
            check("copies" not in said, f"{name}: {said}")
            continue
        check(abs(said["gap"] - (proof["price"] - proof["bound"])) < 1e-6, f"{name}: {said}")
        masks = np.array([1 << h for h in layer["home"]])
        for copy in layer["copies"]:
            masks[copy["expert"]] |= 1 << copy["rank"]
        here = f"{name} layer {layer['layer']}"
        held = [int((masks >> r & 1).sum()) for r in range(ranks)]
        check((np.array(held) <= slots).all(), f"{here}: {held} experts, {slots} slots")
        check(len(layer["copies"]) <= proof["copies"], f"{here}: {len(layer['copies'])} copies in the plan")
        if current is not None:
            check(np.sum(np.array(layer["home"]) != current) == proof["moves"], f"{here}: {proof['moves']} moves?")
        true = best_imbalance(weights, masks, ranks, speed)
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
                truth = enumerate_least(weights, ranks, slots, within, given)
                here = f"seed {seed}, {homes}, within {within}, layer {proof['layer']}"
                if proof["solver"] == "not in this build":
                    check(truth is None or proof["bound"] <= truth, f"{here}: {proof}, truth {truth}")
                    continue
                check(proof["status"] == ("optimal" if truth is not None else "infeasible"), f"{here}: {proof}")
                check(proof["copies"] == truth, f"{here}: {proof}, truth {truth}")
            recheck(result, plan, load, ranks, slots, within, homes == "fixed", f"seed {seed} {homes} {within}")


def small_moving(tmp):
    """From homes that are wrong, at several prices; ranks with different slots and speeds."""
    trace, plan, start = f"{tmp}/moving.blt", f"{tmp}/moving.json", f"{tmp}/start.json"
    speeds = (1, 0.5, 1.5)
    for seed, slots, speed in ((6, "2", None), (7, "3", None), (8, "2,3,4", None), (9, "3", speeds), (10, "4,2,3", speeds)):
        counts = made_up(seed, steps=1, ranks=2, layers=6, experts=6, skew=1.2)
        write_trace(trace, counts)
        load = counts.sum((0, 1, 3)).astype(float)
        each = np.array([int(s) for s in slots.split(",")] * (1 if "," in slots else 3))
        must("ballast-plan", "place", "--trace", trace, "--ranks", 3, "--slots", slots, "--policy", "static", "-o", start)
        with open(start, encoding="utf-8") as file:
            current = np.array(json.load(file)["placement"]["layers"][0]["home"])
        options = () if speed is None else ("--speeds", ",".join(map(str, speed)))
        for price, within in itertools.product((None, 0, 0.3, 2), (1.05, 1.3)):
            given = () if price is None else ("--move-price", price)
            result = place(trace, plan, "--ranks", 3, "--slots", slots, "--from", start, "--prove", 20, "--within", within,
                           *options, *given)
            worth = max(1, each.sum() - 5) if price is None else price
            for proof, weights in zip(result["prove"]["layers"], load):
                truth = enumerate_least(weights, 3, each, within, current=current, move_price=worth, speed=speed)
                here = f"seed {seed}, price {price}, within {within}, layer {proof['layer']}"
                if proof["solver"] == "not in this build":
                    check(truth is None or proof["bound"] <= truth + 1e-6, f"{here}: {proof}, truth {truth}")
                    continue
                check(proof["status"] == ("optimal" if truth is not None else "infeasible"), f"{here}: {proof}, {truth}")
                check(truth is None or abs(proof["price"] - truth) < 1e-6, f"{here}: {proof}, truth {truth}")
            recheck(result, plan, load, 3, each, within, False, f"seed {seed} price {price} {within}", current, speed)
        for homes in ("free", "fixed"):
            result = place(trace, plan, "--ranks", 3, "--slots", slots, "--homes", homes, "--prove", 20, "--within", 1.2, *options)
            for proof, weights in zip(result["prove"]["layers"], load):
                truth = enumerate_least(weights, 3, each, 1.2, homes=current if homes == "fixed" else None, speed=speed)
                if proof["solver"] != "not in this build":
                    check(proof["price"] == truth, f"seed {seed}, {homes}, layer {proof['layer']}: {proof}, truth {truth}")
            recheck(result, plan, load, 3, each, 1.2, False, f"seed {seed} {homes}", speed=speed)
    text = must("ballast-plan", "explain", plan)
    check("within an imbalance of 1.2:" in text, text)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def run_and_hurt(trace, plan, seconds, hurt):
    """place --prove, whose solver process `hurt` gets as soon as there is one; the answer, and how long it took."""
    command = [BUILD / "ballast-plan", "place", "--trace", trace, "--ranks", 8, "--slots", 5, "--from", f"{plan}.from",
               "--move-price", 0.3, "--prove", seconds, "--within", 1.02, "--json", "-o", plan]
    start = time.monotonic()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        hurt_one = False
        while running.poll() is None and not hurt_one:
            for child in children(running.pid):
                hurt(child)
                hurt_one = True
            time.sleep(0.001)
        out, err = running.communicate(timeout=200)
    if not check(running.returncode == 0 and out, f"exit {running.returncode}: {err}"):
        sys.exit(check.end())
    return hurt_one, json.loads(out)["prove"]["layers"][0], time.monotonic() - start


def no_memory(pid):
    resource.prlimit(pid, resource.RLIMIT_AS, (1, 1))


def hurt_solver(tmp):
    """Killed, crashed, stopped for good, without memory: the answer of the search with its gap, and the reason in the plan."""
    trace, plan = f"{tmp}/hurt.blt", f"{tmp}/hurt.json"
    popular = np.exp(np.random.default_rng(3).normal(0, 0.5, 32))  # cheap moves under mild load: bounds are far from prices
    write_trace(trace, np.floor(popular / popular.sum() * 1e6).astype(np.int64).reshape(1, 1, 1, 1, 32))
    must("ballast-plan", "place", "--trace", trace, "--ranks", 8, "--slots", 5, "--policy", "static", "-o", f"{plan}.from")
    ways = [("died", "signal 9", lambda pid: os.kill(pid, signal.SIGKILL)),
            ("time limit", "killed at the time limit", lambda pid: os.kill(pid, signal.SIGSTOP)),
            ("died", "signal 11", lambda pid: os.kill(pid, signal.SIGSEGV)), ("out of memory", "memory", no_memory)]
    if BUILD.name in ("asan", "tsan"):
        check.skip("sanitizers answer crashes and full memory in their own way")
        ways = ways[:2]
    for solver, word, hurt in ways:
        found, proof, seconds = run_and_hurt(trace, plan, 2, hurt)
        if not found:
            return check.skip("this build asks no solver: GLPK is absent")
        with open(plan, encoding="utf-8") as file:
            layer = json.load(file)["placement"]["layers"][0]
        said = layer["proved"]
        check(said["solver"] == solver and word in said.get("reason", ""), f"{solver}: the plan says {said}")
        check(proof["status"] == "gap" and said["price"] > said["bound"] > 0, f"{solver}: {proof}")
        check(said["copies"] == len(layer["copies"]), f"{solver}: {said}")
        check(layer["imbalance"] <= 1.02 + 1e-9 and seconds < 30, f"{solver}: {layer['imbalance']} after {seconds} s")
        check(word in must("ballast-plan", "explain", plan), f"{solver}: explain does not say why")


def words(tmp):
    trace = f"{tmp}/words.blt"
    write_trace(trace, made_up(5, steps=2, ranks=2, layers=2, experts=8))
    for code, part, options in ((2, "--prove", ("--prove", 0)), (2, "--within", ("--prove", 1, "--within", 0.9)),
                                (2, "goes with --prove", ("--within", 1.1)),
                                (2, "--policy ballast", ("--prove", 1, "--policy", "eplb:1")),
                                (2, "--from", ("--from", trace)), (2, "--from", ("--prove", 1, "--move-price", 2)),
                                (1, "words.blt", ("--prove", 1, "--from", trace)), (2, "--speeds", ("--speeds", "1,1,1")),
                                (2, "--speeds", ("--speeds", "1,1,0,1")), (2, "--speeds", ("--speeds", "1,1,x,1")),
                                (2, "--homes", ("--prove", 1, "--from", trace, "--homes", "free")),
                                (2, "--prove", ("--prove", "nan"))):
        found, out, err = run("ballast-plan", "place", "--trace", trace, "--ranks", 4, *options)
        check(found == code and part in err and not out, f"{options}: exit {found}: {err!r}")
    other, plan = f"{tmp}/other.blt", f"{tmp}/other.json"
    write_trace(other, made_up(5, steps=2, ranks=2, layers=1, experts=8))
    must("ballast-plan", "place", "--trace", other, "--ranks", 4, "-o", plan)
    code, out, err = run("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--prove", 1, "--from", plan)
    check(code == 1 and "no layer 1" in err and not out, f"a plan of fewer layers: exit {code}: {err!r}")
    code, out, err = run("ballast-plan", "place", "--trace", trace, "--ranks", 2, "--prove", 1, "--from", plan)
    check(code == 1 and "8 experts on 4 ranks" in err and not out, f"a plan of other ranks: exit {code}: {err!r}")
    text = must("ballast-plan", "place", "--trace", other, "--ranks", 4, "--prove", 5, "--from", plan)
    check("fewest moves from" in text and "1 of 1 layers proved" in text, text)
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
    small_moving(tmp_folder)
    hurt_solver(tmp_folder)
    recorded(tmp_folder)
sys.exit(check.end())
