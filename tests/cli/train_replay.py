#!/usr/bin/env python3
"""Whatever the policy: the recorded trace of a live run, replayed with the same options, gives the dump of the run byte for
byte; and the imbalance of executed tokens in the run log is the replay's within rounding."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import Check, folder, must, read_log, text_file, write_model  # noqa: E402

check = Check()
POLICIES = [["static"], ["smartmoe:3"], ["eplb:3"], ["fastermoe"], ["ballast"], ["ballast", "--late-repair", 1.02],
            ["ballast", "--homes", "free"], ["ballast", "--homes", "cost"], ["ballast", "--shares", "stale"],
            ["ballast", "--lag", 3], ["ballast", "--back-off", 8]]


def same_dump(tmp, model, data, ranks, slots, policy):
    name = " ".join(map(str, policy))
    files = {k: f"{tmp}/{k}" for k in ("log.jsonl", "run.blt", "live.dump", "replay.dump")}
    placement = ["--ranks", ranks, "--slots", slots, "--policy", *policy]
    must("ballast-train", "--model", model, "--data", data, "--steps", 12, "--batch", 24, "--micro-batches", 2, *placement,
         "--log", files["log.jsonl"], "--record-trace", files["run.blt"], "--dump", files["live.dump"])
    must("ballast-plan", "replay", "--trace", files["run.blt"], *placement, "--dump", files["replay.dump"])
    live, replayed = (open(files[k], "rb").read() for k in ("live.dump", "replay.dump"))
    check(live == replayed and live.count(b"\n") == 12 * 2, f"{ranks} ranks, {name}: the replay's dump differs")
    return read_log(files["log.jsonl"])[1], [json.loads(line) for line in live.splitlines()]


def imbalance_agrees(tmp, policy, steps):
    """The mean over layers and steps; one token more or less on a rank is 1/96 of its load here."""
    result = json.loads(must("ballast-plan", "replay", "--trace", f"{tmp}/run.blt", "--ranks", 4, "--slots", 4, "--policy",
                             *policy, "--json"))
    logged = [layer["imbalance"] for step in steps for layer in step["layers"]]
    mean = sum(logged) / len(logged)
    found = result["imbalance_mean"]
    check(abs(mean - found) < 0.02, f"{policy}: imbalance {mean} in the log, replay says {found}")


with folder() as tmp:
    data = text_file(tmp)
    model = write_model(f"{tmp}/model.json")
    for policy in POLICIES:
        steps, dump = same_dump(tmp, model, data, 4, 4, policy)
        imbalance_agrees(tmp, policy, steps)
        moved = sum(layer["moved"] for step in steps for layer in step["layers"])
        copies = sum(layer["copies"] for step in steps for layer in step["layers"])
        late = [layer["late"] for step in steps for layer in step["layers"]]
        if policy[0].startswith(("smartmoe", "eplb")) or "free" in policy:
            check(moved > 0, f"{policy}: no home moved")
        if policy[0].startswith(("eplb", "ballast")):
            check(copies > 0, f"{policy}: no copies")
        if "--late-repair" in policy:
            check(any(late), f"{policy}: nothing was repaired late")
        check(late == [line["late"] for line in dump], f"{policy}: log and dump disagree about late repair")
        check(len({step["plan_version"] for step in steps}) > 1 or policy[0] in ("static", "fastermoe"), f"{policy}: one plan version")
    same_dump(tmp, model, data, 3, "4,5,3", ["ballast"])
sys.exit(check.end())
