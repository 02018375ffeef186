#!/usr/bin/env python3
"""Replays recomputed by independent code, from the CSV export and the dump alone."""
import json
import os
import random
import sys
import tarfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support import rules  # noqa: E402
from plan_support.tools import DATA, Check, folder, made_up, must, read_csv, replay, run, write_trace  # noqa: E402

check = Check()


def triples(row):
    return [(c["expert"], c["rank"], c["share"]) for c in row["copies"]]


def slots_kept(row, slots, planned):
    ranks = len(slots)
    home = row["planned"]["home"] if planned else row["home"]
    copies = row["planned"]["copies"] if planned else [[c["expert"], c["rank"]] for c in row["copies"]]
    held = [[] for _ in range(ranks)]
    for e, r in enumerate(home):
        held[r].append(e)
    for e, r in copies:
        held[r].append(e)
    return all(len(h) == len(set(h)) and len(h) <= slots[r] for r, h in enumerate(held))


def recompute(name, result, dump, steps, loads, ranks, slots, fresh=True, every=1):
    """loads[step][layer][expert]. Mean imbalance of the dump's shares; that shares are optimal; that slots hold."""
    index = {step: i for i, step in enumerate(steps)}
    values, optimal, legal = [], True, True
    for n, row in enumerate(dump):
        load = loads[index[row["step"]], row["layer"]]
        values.append(rules.imbalance(row["home"], triples(row), load, ranks))
        legal = legal and (slots is None or (slots_kept(row, slots, True) and slots_kept(row, slots, False)))
        if fresh and n % every == 0:
            best = rules.best_imbalance(row["home"], [(e, r) for e, r, _ in triples(row)], load, ranks)
            optimal = optimal and abs(best - values[-1]) < 1e-6
    check(len(dump) == result["steps"] * result["layers"], f"{name}: a line for every step and layer")
    check.near(result["imbalance_mean"], float(np.mean(values)), 1e-7, f"{name}: mean imbalance")
    check.near(result["imbalance_worst"], max(values), 1e-6, f"{name}: worst imbalance")
    check.near(result["imbalance_p99"], sorted(values)[-(-99 * len(values) // 100) - 1], 1e-6, f"{name}: p99")
    check(optimal, f"{name}: shares are the best there are")
    check(legal, f"{name}: no rank holds an expert twice or more experts than slots")
    return values


def check_changes(name, result, dump, start):
    """Copies filled and changed, homes moved, as the result counts them; the dump is the whole replay's, from `start` homes on."""
    filled, changed, moved, before = 0, 0, 0, {}
    for row in dump:
        home, copies = before.get(row["layer"], (start[row["layer"]], set()))
        planned = {tuple(c) for c in row["planned"]["copies"]}
        filled += len(planned)
        changed += len(planned - copies)
        moved += sum(a != b for a, b in zip(home, row["planned"]["home"]))
        before[row["layer"]] = (row["home"], {(e, r) for e, r, _ in triples(row)})
    check(result["fills"] == filled and result["moves"] == moved, f"{name}: {filled} copies filled, {moved} homes moved")
    check.near(result["copies_changed"], changed / len(dump), 1e-7, f"{name}: copies changed")


def check_cost(name, result, dump, steps, loads, ranks):
    """What the decisions cost; hindsight with the start among its candidates is never dearer than staying there."""
    total, before = 0, {}
    for row in dump:
        planned = row["planned"]
        load = loads[steps.index(row["step"]), row["layer"]]
        total += rules.best_imbalance(planned["home"], [tuple(c) for c in planned["copies"]], load, ranks)
        total += result["copy_price"] * len(planned["copies"])
        home = before.get(row["layer"], planned["home"])
        total += result["move_price"] * sum(a != b for a, b in zip(home, planned["home"]))
        before[row["layer"]] = planned["home"]
    check.near(result["cost"], total / len(dump), 1e-6, f"{name}: cost of the decisions")
    check.near(result["regret"], result["cost"] - result["least_cost"], 1e-7, f"{name}: regret")
    check(1 <= result["least_cost"] and result["candidates"] >= 1, f"{name}: hindsight {result}")


def start_from_plan(tmp):
    """Replays that start from a plan's homes, good and bad plans; bytes of a model's experts."""
    counts = made_up(5)
    path, plan, dump, model = f"{tmp}/s.blt", f"{tmp}/s.json", f"{tmp}/s.jsonl", f"{tmp}/s.model"
    write_trace(path, counts)
    steps, loads = [1 + 10 * s for s in range(counts.shape[0])], counts.sum(axis=(1, 3))
    start = [[(e * 7 + layer) % 4 for e in range(16)] for layer in range(3)]
    common = ["--trace", path, "--ranks", 4, "--slots", 5]

    def write_plan(layers, ranks=4):
        with open(plan, "w", encoding="ascii") as file:
            json.dump({"version": 1, "placement": {"ranks": ranks, "slots": 5 if ranks == 4 else 16, "layers": [
                {"layer": n, "home": [r % ranks for r in home], "copies": [], "imbalance": 1, "bound": 1}
                for n, home in layers]}}, file)

    write_plan(enumerate(start))
    with open(model, "w", encoding="ascii") as file:
        json.dump({"version": 1, "name": "tiny", "layers": 2, "hidden": 32, "vocabulary": 256, "sequence": 32,
                   "attention": {"heads": 2, "head_width": 16}, "ffn": {"width": 64},
                   "moe": {"experts": 16, "width": 48, "top_k": 2}}, file)
    parameters = 32 * 48 * 2 + 48 + 32
    for options in (["--policy", "static"], [], ["--late-repair", 1.02], ["--homes", "cost"], ["--policy", "eplb:1"]):
        result, rows = replay(*common, *options, "--plan", plan, "--model", model, "--regret", 5, dump=dump)
        check([r["planned"]["home"] for r in rows[:3]] == start, f"start {options}: homes of the plan at the first step")
        check_changes(f"start {options}", result, rows, start)
        check_cost(f"start {options}", result, rows, steps, loads, 4)
        check(result["moved_bytes"] == 14 * parameters * result["moves"] and result["fill_bytes"] == 2 * parameters * result["fills"]
              and result["late_fill_bytes"] == 2 * parameters * result["late_fills"], f"start {options}: bytes")
    refuse = [(lambda: write_plan(list(enumerate(start))[:2]), "layer 2"), (lambda: write_plan(enumerate(start), 2), "on 2 ranks")]
    for write, text in refuse:
        write()
        code, _, err = run("ballast-plan", "replay", *common, "--plan", plan)
        check(code == 1 and text in err, f"a plan that does not fit: {code} {err}")


def check_smartmoe(name, dump, steps, loads, ranks, every, numpy_ties):
    homes, good = {}, True
    for row, decides in zip(dump, [d for d in rules.due(steps, every) for _ in range(loads.shape[1])]):
        home = homes.get(row["layer"], rules.contiguous(loads.shape[2], ranks))
        load = [float(x) for x in loads[steps.index(row["step"]), row["layer"]]]
        order = list(np.argsort(np.array(load))[::-1]) if numpy_ties else sorted(range(len(load)), key=lambda e: (-load[e], e))
        homes[row["layer"]] = rules.smartmoe(home, load, ranks, order) if decides else home
        good = good and row["home"] == homes[row["layer"]] and not row["copies"]
    check(good, f"{name}: homes as the rule says, in every step")


def check_eplb(name, dump, steps, loads, ranks, slots):
    homes, wrong, seen = {}, 0, 0
    for row in dump:
        home = homes.get(row["layer"], rules.contiguous(loads.shape[2], ranks))
        load = [float(x) for x in loads[steps.index(row["step"]), row["layer"]]]
        homes[row["layer"]], shares = rules.eplb(home, load, ranks, slots)
        found = {(c["expert"], c["rank"]): c["share"] for c in row["copies"]}
        same = row["home"] == homes[row["layer"]] and found.keys() == shares.keys() and all(
            load[e] == 0 or abs(found[e, r] - shares[e, r]) < 1e-8 for e, r in shares)
        wrong += not same
        seen += 1
    check(seen >= 50 and wrong == 0, f"{name}: {wrong} of {seen} instances differ from the oracle")


def made_up_traces(tmp):
    for number, (experts, ranks, slots) in enumerate([(16, 4, [5] * 4), (18, 4, [6, 7, 5, 6]), (13, 5, [4] * 5)]):
        counts = made_up(number, experts=experts)
        path = f"{tmp}/m{number}.blt"
        write_trace(path, counts)
        must("ballast-trace", "export", path, "--to", "csv", "-o", f"{tmp}/m.csv")
        step_numbers, table = read_csv(f"{tmp}/m.csv")
        check((table == counts.transpose(0, 2, 1, 3, 4)).all(), "the CSV has the counts that went in")
        steps, loads = [int(s) for s in step_numbers], table.sum(axis=(2, 3))
        common = ["--trace", path, "--ranks", ranks, "--slots", ",".join(map(str, slots))]
        dump = f"{tmp}/d.jsonl"
        for options in (["--policy", "static"], ["--policy", "ballast"], ["--policy", "ballast", "--late-repair", "1.02"],
                        ["--policy", "ballast", "--homes", "free"], ["--policy", "ballast", "--homes", "cost"],
                        ["--policy", "ballast", "--lag", 3], ["--policy", "ballast", "--homes", "free", "--lag", 0]):
            result, rows = replay(*common, *options, dump=dump)
            recompute(f"{experts}/{ranks} {options}", result, rows, steps, loads, ranks, slots)
            if len(set(slots)) == 1:
                check_changes(f"{experts}/{ranks} {options}", result, rows, [rules.contiguous(experts, ranks)] * 3)
        result, rows = replay(*common, "--policy", "ballast", "--shares", "stale", dump=dump)
        recompute("stale", result, rows, steps, loads, ranks, slots, fresh=False)
        result, rows = replay(*common, "--policy", "eplb:1", "--lag", 0, dump=dump)
        recompute("eplb", result, rows, steps, loads, ranks, slots, fresh=False)
        check_eplb(f"eplb {experts}/{ranks}", rows, steps, loads, ranks, slots)
        if len(set(slots)) == 1:
            for every, ties in ((1, "stable"), (20, "stable"), (1, "numpy")):
                result, rows = replay(*common, "--policy", f"smartmoe:{every}", "--lag", 0, "--ties", ties, dump=dump)
                check_smartmoe(f"smartmoe:{every} {ties}", rows, steps, loads, ranks, every, ties == "numpy")
    sources = table[:, :, :, 0]  # [step][layer][rank][expert]
    result, rows = replay("--trace", path, "--ranks", 4, "--policy", "fastermoe", "--lag", 0, "--micro-batch", 0, dump=dump)
    home, good = rules.contiguous(13, 4), True
    for row in rows:
        counts = sources[steps.index(row["step"]), row["layer"]]
        shadows, _ = rules.fastermoe(home, counts)
        found = {(c["expert"], c["rank"]): c["share"] for c in row["copies"]}
        good = good and found.keys() == {(e, r) for e in shadows for r in range(4) if r != home[e]} and all(
            abs(found[e, r] * counts[:, e].sum() - counts[r, e]) < 1e-4 for e, r in found)
    check(good, "fastermoe: shadows as the rule says, tokens stay at their source")


def micro_batches(tmp):
    """One by one: the dump's share is of the step's tokens, the result the mean over micro-batches."""
    counts = made_up(7, steps=12, tokens=300)
    path, dump = f"{tmp}/mb.blt", f"{tmp}/mb.jsonl"
    write_trace(path, counts)
    result, rows = replay("--trace", path, "--ranks", 4, "--micro-batches", "each", dump=dump)
    loads = counts.sum(axis=1)  # [step][layer][micro_batch][expert]
    values = [np.mean([rules.best_imbalance(row["home"], [(e, r) for e, r, _ in triples(row)], loads[i // 3, i % 3, m], 4)
                       for m in range(2)]) for i, row in enumerate(rows)]
    check.near(result["imbalance_mean"], float(np.mean(values)), 1e-7, "micro-batches one by one")
    check(replay("--trace", path, "--ranks", 4)["micro_batches"] == "sum", "an imported trace is summed by default")


def causality(tmp):
    """What is planned for a step depends on counts at least `lag` records older."""
    counts = made_up(11, steps=24)
    paths, changed = [f"{tmp}/c0.blt", f"{tmp}/c1.blt"], 13
    write_trace(paths[0], counts)
    counts = counts.copy()
    counts[changed] = counts[changed][..., ::-1]
    write_trace(paths[1], counts)
    for options in (["--late-repair", "1.01"], ["--homes", "free"], ["--homes", "cost"], ["--policy", "eplb:1"],
                    ["--back-off", 8], ["--policy", "smartmoe:20"], ["--policy", "fastermoe"], ["--lag", 3], ["--shares", "stale"]):
        lag = options[1] if options[0] == "--lag" else 1
        rows = [replay("--trace", path, "--ranks", 4, *options, dump=f"{tmp}/c.jsonl")[1] for path in paths]
        last = (changed + lag) * 3
        same = [a["planned"] == b["planned"] for a, b in zip(*rows)]
        check(all(same[:last]), f"causality {options}: no plan at or before the changed counts differs")
        reacts = options not in (["--policy", "smartmoe:20"], ["--policy", "fastermoe"])  # these may decide alike
        check(not (reacts and all(same[last:])), f"causality {options}: later ones do")
        whole = open(f"{tmp}/c.jsonl", encoding="utf-8").read().splitlines()
        must("ballast-plan", "replay", "--trace", paths[1], "--ranks", 4, *options, "--steps", ":101", "--dump",
             f"{tmp}/c.jsonl")
        prefix = open(f"{tmp}/c.jsonl", encoding="utf-8").read().splitlines()
        check(len(prefix) == 33 and prefix == whole[:33], f"causality {options}: a prefix replays as the whole's prefix")


def trigger(tmp):
    """Homes are looked at when recent steps were unbalanced: of steps younger than the lag not even that is known."""
    paths, changed, lag = [f"{tmp}/t0.blt", f"{tmp}/t1.blt"], 12, 3
    for seed in (0, 6, 7):
        skewed, calm = made_up(seed, steps=24), np.random.default_rng(seed).random(24) < 0.75
        flat = np.full_like(skewed[0], int(skewed.mean()))
        for path, of_changed in zip(paths, (flat, skewed[changed])):
            counts = skewed.copy()
            counts[calm] = flat
            counts[changed] = of_changed
            write_trace(path, counts)
        rows = [replay("--trace", path, "--ranks", 4, "--lag", lag, "--homes", "cost", "--copy-price", 0,
                       dump=f"{tmp}/c.jsonl")[1] for path in paths]
        same = [a["planned"] == b["planned"] for a, b in zip(*rows)]
        check(all(same[:(changed + lag) * 3]), f"homes of seed {seed} are moved for nothing that the lag keeps unknown")


def back_off(tmp):
    """Routing that stays as it is: decisions and their time fall, the imbalance does not rise."""
    path = f"{tmp}/stable.blt"
    for experts, ranks, skew, seed in ((32, 8, "0.5", 1), (64, 16, "1", 2)):
        must("ballast-trace", "gen", "--experts", experts, "--layers", 4, "--ranks", 4, "--zipf", skew, "--drift", 0, "--jumps", 0,
             "--bursts", 0, "--steps", 200, "--seed", seed, "-o", path)
        common = ["--trace", path, "--ranks", ranks, "--steps", "41:200"]
        every, rests = replay(*common), replay(*common, "--back-off", 32)
        check(every["decided_percent"] == 100 and rests["decided_percent"] <= 20,
              f"back-off, {experts} experts: {rests['decided_percent']} % of layer-steps decided")
        check(rests["imbalance_mean"] <= every["imbalance_mean"] + 2e-5,
              f"back-off, {experts} experts: {rests['imbalance_mean']} against {every['imbalance_mean']}")
        check(rests["decide_mean_us"] < every["decide_mean_us"], f"back-off, {experts} experts: {rests['decide_mean_us']} us")


def public_trace(tmp):
    archive = DATA / "smartmoe_moe_trace_1-2491.tar.xz"
    if not archive.exists():
        check.skip("the public trace is not at hand (../shared/data/smartmoe_moe_trace_1-2491.tar.xz)")
        return
    with tarfile.open(archive) as tar:
        tar.extractall(tmp)
    path, dump, csv = f"{tmp}/public.blt", f"{tmp}/public.jsonl", f"{tmp}/public.csv"
    must("ballast-trace", "import", "--from", "smartmoe", f"{tmp}/moe_trace", "-o", path)
    must("ballast-trace", "export", path, "--to", "csv", "-o", csv)
    numbers, table = read_csv(csv)
    check(table.shape == (250, 24, 16, 4, 32) and (table.sum(axis=4) == 4096).all(), "250 x 24 x 16 x 4 x 32, rows of 4096")
    steps, loads = [int(s) for s in numbers], table.sum(axis=(2, 3))
    for ranks, static, smartmoe in ((4, 2.0006, 1.4216), (8, 3.2974, 2.7261), (16, 5.8586, 5.4451)):
        common = ["--trace", path, "--ranks", ranks, "--lag", 0]
        result, rows = replay(*common, "--policy", "static", dump=dump)
        values = recompute(f"public static {ranks}", result, rows, steps, loads, ranks, None, every=500)
        check.near(float(np.mean(values)), static, 5e-5, f"public static {ranks}")
        result, rows = replay(*common, "--policy", "smartmoe:1", dump=dump)
        check.near(result["imbalance_mean"], smartmoe, 1e-3, f"public smartmoe {ranks}")
        recompute(f"public smartmoe {ranks}", result, rows, steps, loads, ranks, None, every=500)
        result, rows = replay(*common, "--policy", "ballast", "--homes", "free", dump=dump)
        check(result["imbalance_worst"] <= 1.000001, f"public free homes {ranks}: perfect")
        recompute(f"public free {ranks}", result, rows, steps, loads, ranks, [32 // ranks + 1] * ranks, every=500)
        result, rows = replay(*common, "--policy", "eplb:1", dump=dump)
        recompute(f"public eplb {ranks}", result, rows, steps, loads, ranks, [32 // ranks + 1] * ranks, fresh=False)
        random.seed(ranks)
        check_eplb(f"public eplb {ranks}", rows[:24 * 3], steps, loads, ranks, [32 // ranks + 1] * ranks)
    for ranks, mean, repaired, late in ((4, 1.0035, 1.0035, 1.5), (8, 1.0010, 1.00015, 1.0), (16, 1.0046, 1.0004, 3.5)):
        common = ["--trace", path, "--ranks", ranks, "--slots", 32 // ranks + 1, "--steps", "121:2491", "--homes", "fixed"]
        result, rows = replay(*common, dump=dump)
        recompute(f"public ballast {ranks}", result, rows, steps, loads, ranks, [32 // ranks + 1] * ranks, every=500)
        check(result["imbalance_mean"] <= mean and result["moves"] == 0, f"public ballast {ranks}: {result}")
        result, rows = replay(*common, "--late-repair", 1.02, dump=dump)
        recompute(f"public repaired {ranks}", result, rows, steps, loads, ranks, [32 // ranks + 1] * ranks, every=500)
        check(result["imbalance_mean"] <= repaired and (ranks == 4 or result["imbalance_worst"] <= 1.021)
              and result["late_percent"] <= late, f"public repaired {ranks}: {result}")
    cost = ["--trace", path, "--steps", "121:2491", "--homes", "cost", "--copy-price"]
    result, rows = replay(*cost, 0, "--ranks", 4, dump=dump)
    recompute("public cost 4", result, rows, steps, loads, 4, [9] * 4, every=500)
    check(result["imbalance_mean"] <= 1.0015 and result["moves_per_layer_per_1000"] <= 2, f"public cost 4: {result}")
    result = replay(*cost, 0.031, "--ranks", 8)
    check(result["imbalance_mean"] <= 1.05 and result["copies"] <= 4.2 and result["moves_per_layer_per_1000"] <= 25,
          f"public cost 8: {result}")
    one = ["--trace", path, "--ranks", 8, "--lag", 0, "--layers", 6, "--source-rank", 0, "--micro-batch", 0]
    result, rows = replay(*one, "--policy", "smartmoe:10", "--ties", "numpy", dump=dump)
    check(result["changes"] == 77, f"the artifact's figure 13: {result['changes']} changes, expected 77")
    _, base = rules.fastermoe(rules.contiguous(32, 16), table[steps.index(1001), 6, :, 0])
    check.near(base, 0.042198, 1e-6, "FasterMoE's model on iteration 1001, layer 6")


with folder() as scratch:
    made_up_traces(scratch)
    start_from_plan(scratch)
    micro_batches(scratch)
    causality(scratch)
    trigger(scratch)
    back_off(scratch)
    public_trace(scratch)
sys.exit(check.end())
