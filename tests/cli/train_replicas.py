#!/usr/bin/env python3
"""Replicas of experts (ranks = ep x replicas): 4 ranks as 2 x 2 agree with 1 rank and with 4 x 1, homes move without changing
a bit, a replay reproduces every decision, checkpoints go from any layout to any other.
time limit: 300 s"""
import filecmp
import json
import os
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import BUILD, Check, folder, losses, must, read_log, run, train, write_model, write_text  # noqa: E402

check = Check()
TWO_BY_TWO = ["--ranks", 4, "--ep", 2]
POLICIES = (["static"], ["smartmoe:2"], ["eplb:3"], ["fastermoe"], ["ballast", "--late-repair", 1.02], ["ballast", "--homes", "cost"])


def relative(a, b):
    return max(abs(float(x) - float(y)) / abs(float(y)) for x, y in zip(a, b))


def column(log, name):
    return [step[name] for step in read_log(log)[1]]


def total(log, name):
    return sum(layer[name] for step in read_log(log)[1] for layer in step["layers"])


def agreement(tmp, base):
    one = train(f"{tmp}/one", *base, "--steps", 20)
    four = train(f"{tmp}/four", *base, "--steps", 20, "--ranks", 4, "--policy", "static")
    static = train(f"{tmp}/static", *base, "--steps", 20, *TWO_BY_TWO, "--policy", "static")
    for name, other, log in (("1 rank", one, "one"), ("4 x 1 ranks", four, "four")):
        check(relative(static, other) < 1e-6, f"2 x 2 ranks against {name}: losses differ by {relative(static, other)}")
        norm = relative(column(f"{tmp}/static", "grad_norm"), column(f"{tmp}/{log}", "grad_norm"))
        check(norm < 1e-5, f"2 x 2 ranks against {name}: gradient norms differ by {norm}; each expert counts once")
    six = train(f"{tmp}/six", *base, "--steps", 20, "--ranks", 6, "--ep", 2, "--policy", "static")
    check(relative(six, one) < 1e-6, f"2 x 3 ranks against 1: losses differ by {relative(six, one)}")
    eight = train(f"{tmp}/dense", *base, "--steps", 20, "--ranks", 4, "--ep", 1)
    check(relative(eight, one) < 1e-6, f"1 x 4 ranks against 1: losses differ by {relative(eight, one)}")
    moving = train(f"{tmp}/moving", *base, "--steps", 20, *TWO_BY_TWO, "--policy", "smartmoe:2")
    check(moving == static and total(f"{tmp}/moving", "moved") > 0, "moved homes of replicas change the losses")
    train(f"{tmp}/two", *base, "--steps", 20, "--ranks", 2, "--policy", "smartmoe:2")
    moved, single = (column(f"{tmp}/{name}", "moved_bytes") for name in ("moving", "two"))
    check(sum(moved) == 2 * sum(single) > 0, f"two replicas of what moves: {sum(moved)} bytes, one: {sum(single)}")
    copies = train(f"{tmp}/copies", *base, "--steps", 20, *TWO_BY_TWO, "--policy", "ballast", "--late-repair", 1.02)
    check(relative(copies, static) < 1e-6, f"copies of replicas: losses differ by {relative(copies, static)}")
    check(total(f"{tmp}/copies", "copies") > 0, "ballast used no copies")
    train(f"{tmp}/filled", *base, "--steps", 20, "--ranks", 2, "--policy", "ballast", "--late-repair", 1.02)
    filled, single = (sum(column(f"{tmp}/{name}", "fill_bytes")) for name in ("copies", "filled"))
    check(filled == 2 * single > 0, f"two replicas of what is filled: {filled} bytes, one: {single}")
    gshard = [train(f"{tmp}/gshard{r}", *base, "--steps", 10, "--gate", "gshard", *r) for r in ([], TWO_BY_TWO)]
    check(relative(*gshard) < 1e-4, f"gshard: losses differ by {relative(*gshard)}")


def balance(tmp, base):
    """Shares are solved for each group's own counts: all ranks are level, though the groups' tokens differ."""
    log = f"{tmp}/level"
    train(log, *base, "--steps", 12, *TWO_BY_TWO, "--policy", "ballast", "--late-repair", 1.001, "--slots", 6)
    worst = max(layer["imbalance"] for step in read_log(log)[1][2:] for layer in step["layers"])
    check(worst < 1.01, f"ballast with replicas: imbalance {worst}")
    train(log, *base, "--steps", 2, *TWO_BY_TWO, "--gate", "uniform")
    check(all(layer["imbalance"] == 1 for step in read_log(log)[1] for layer in step["layers"]), "uniform routing is not level")
    train(log, *base, "--steps", 3, *TWO_BY_TWO, "--policy", "static", "--record-trace", f"{tmp}/level.blt")
    must("ballast-trace", "export", f"{tmp}/level.blt", "--to", "csv", "-o", f"{tmp}/level.csv")
    tokens = {}
    for line in open(f"{tmp}/level.csv", encoding="ascii").readlines()[1:]:
        step, layer, source, _, *row = map(int, line.split(","))
        for place in (0, 1):  # the source's own group: sources come by place, then by replica
            tokens.setdefault((step, layer), {}).setdefault((source % 2, place), []).append(sum(row[4 * place:4 * place + 4]))
    for number, step in enumerate(read_log(log)[1], 1):
        for l, layer in enumerate(step["layers"]):
            ranks = [sum(part) for part in tokens[(number, l)].values()]
            expected = max(ranks) * len(ranks) / sum(ranks)
            check(abs(layer["imbalance"] - expected) < 1e-8, f"step {number}, layer {l}: imbalance {layer}, expected {expected}")


def replays(tmp, base):
    for policy in POLICIES:
        trace, dump, again = f"{tmp}/r.blt", f"{tmp}/r.dump", f"{tmp}/again.dump"
        must("ballast-train", *base, "--steps", 8, *TWO_BY_TWO, "--micro-batches", 2, "--policy", *policy, "--record-trace",
             trace, "--dump", dump)
        must("ballast-plan", "replay", "--trace", trace, "--ranks", 2, "--slots", 5, "--policy", *policy, "--dump", again)
        check(filecmp.cmp(dump, again, shallow=False) and os.path.getsize(dump) > 0, f"{policy[0]}: the replay decides otherwise")


def tensors(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        return [name for name in json.loads(file.read(size)) if name != "__metadata__"]


def checkpoints(tmp, base):
    options = [*base, "--schedule-steps", 10, "--policy", "ballast", "--late-repair", 1.02]
    whole, half = f"{tmp}/whole", f"{tmp}/half"
    full = train(whole, *options, "--steps", 10, *TWO_BY_TWO, "--checkpoint", f"{whole}.ck")
    train(half, *options, "--steps", 5, *TWO_BY_TWO, "--checkpoint", f"{half}.ck")
    names = [name for file in sorted(os.listdir(f"{half}.ck")) if file.endswith(".safetensors") for name in tensors(f"{half}.ck/{file}")]
    check(len(names) == len(set(names)) > 100, "a tensor is not stored exactly once")
    shutil.copytree(f"{half}.ck", f"{tmp}/same.ck")
    same = train(half, *options, "--steps", 10, *TWO_BY_TWO, "--resume", f"{tmp}/same.ck", "--checkpoint", f"{tmp}/same.ck")
    check(same == full, "going on under the same layout gives other losses")
    for name in os.listdir(f"{whole}.ck"):
        check(filecmp.cmp(f"{whole}.ck/{name}", f"{tmp}/same.ck/{name}", shallow=False), f"going on: another {name}")
    for layout in ([], ["--ranks", 2], ["--ranks", 4], ["--ranks", 3], ["--ranks", 6, "--ep", 3]):
        other = train(f"{tmp}/other", *options, "--steps", 10, "--resume", f"{half}.ck", *layout)
        check(len(other) == 5 and relative(other, full[5:]) < 1e-6, f"from 2 x 2 to {layout}: {relative(other, full[5:])}")
    must("ballast-train", *options, "--ranks", 3, "--steps", 5, "--checkpoint", f"{tmp}/three.ck")
    other = train(f"{tmp}/other", *options, "--steps", 10, "--resume", f"{tmp}/three.ck", *TWO_BY_TWO)
    check(relative(other, full[5:]) < 1e-6, f"from 3 to 2 x 2: {relative(other, full[5:])}")


def plans(tmp, base):
    must("ballast-trace", "gen", "--experts", 8, "--ranks", 2, "--layers", 2, "--steps", 5, "--seed", 1, "-o", f"{tmp}/t.blt")
    must("ballast-plan", "place", "--trace", f"{tmp}/t.blt", "--ranks", 2, "--slots", 5, "-o", f"{tmp}/p.json")
    plan = json.load(open(f"{tmp}/p.json", encoding="utf-8"))
    plan["layout"] = {"tp": 1, "cp": 1, "dp": 4, "pp": 1, "vp": 1, "etp": 1, "ep": 2, "edp": 2, "zero": 0, "micro_batch": 3,
                      "micro_batches": 2, "stages": [[0, 1]]}
    json.dump(plan, open(f"{tmp}/both.json", "w", encoding="utf-8"))
    two = [*base[:4], "--steps", 3]
    log = f"{tmp}/plan.log"
    planned = train(log, *two, "--plan", f"{tmp}/both.json", "--policy", "static", "--dump", f"{tmp}/plan.dump")
    config = read_log(log)[0]["config"]
    check((config["ranks"], config["ep"], config["batch"]) == (4, 2, 24), f"the plan's layout is not in force: {config}")
    for line in open(f"{tmp}/plan.dump", encoding="utf-8"):
        entry = json.loads(line)
        check(entry["home"] == plan["placement"]["layers"][entry["layer"]]["home"], "the plan's homes are not in force")
    by_hand = train(log, *two, "--batch", 24, "--micro-batches", 2, *TWO_BY_TWO, "--plan", f"{tmp}/p.json", "--policy", "static")
    check(planned == by_hand, "the same layout by options gives other losses")
    for more, slots in (({}, [5, 5]), ({"copy_slots": 2}, [6, 6]), ({"copy_slots": 9}, [8, 8])):
        json.dump({"version": 1, "layout": {**plan["layout"], **more}}, open(f"{tmp}/layout.json", "w", encoding="utf-8"))
        train(log, *two, "--plan", f"{tmp}/layout.json", "--policy", "static")
        config = read_log(log)[0]["config"]
        check(config["slots"] == slots, f"{more}: {config}")
    for words, options in (("expected a divisor", ["--ranks", 4, "--ep", 3]), ("expected a divisor", ["--ranks", 2, "--ep", 4]),
                           ("spreads experts over 2 ranks", ["--plan", f"{tmp}/both.json", "--ep", 4]),
                           ("is for 4 ranks", ["--plan", f"{tmp}/both.json", "--ranks", 2]),
                           ("is for 2 ranks", ["--plan", f"{tmp}/p.json", "--ranks", 4])):
        code, out, err = run("ballast-train", *base, "--steps", 1, *options)
        check(code == 2 and words in err and err.count("\n") == 1 and out == "", f"{options}: exit {code}, {err}")


def processes(tmp, base):
    if not shutil.which("mpirun") or not os.path.exists(BUILD / "ballast-mpi.so"):
        check.skip("no mpirun or built without mpicc: replicas in processes are not run")
        return
    env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for policy in (["smartmoe:2"], ["ballast", "--late-repair", 1.02]):
        options = [*base, "--steps", 6, "--ep", 2, "--policy", *policy]
        must("ballast-train", *options, "--ranks", 4, "--log", f"{tmp}/t.log", "--dump", f"{tmp}/t.dump", "--record-trace", f"{tmp}/t.blt")
        command = ["-np", "4", "--oversubscribe", BUILD / "ballast-train", "--transport", "mpi", *options]
        code, _, err = run(shutil.which("mpirun"), *command, "--log", f"{tmp}/m.log", "--dump", f"{tmp}/m.dump", "--record-trace",
                           f"{tmp}/m.blt", env=env)
        check(code == 0 and losses(f"{tmp}/t.log") == losses(f"{tmp}/m.log"), f"{policy[0]}: processes give other losses: {err}")
        for part in ("dump", "blt"):
            check(filecmp.cmp(f"{tmp}/t.{part}", f"{tmp}/m.{part}", shallow=False), f"{policy[0]}: processes give another {part}")


with folder() as tmp:
    base = ["--model", write_model(f"{tmp}/tiny.json"), "--data", write_text(f"{tmp}/words.txt"), "--batch", 24]
    agreement(tmp, base)
    balance(tmp, base)
    replays(tmp, base)
    checkpoints(tmp, base)
    plans(tmp, base)
    processes(tmp, base)
sys.exit(check.end())
