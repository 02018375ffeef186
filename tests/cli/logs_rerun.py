#!/usr/bin/env python3
"""A run that ships in logs/ can be had again: the first steps of one, run with its own command, give the same losses."""

import json
import os
import re
import subprocess
import sys
import zlib

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), p) for p in ("../..", "..")]
from plotting_support.check import ROOT, Check, run_tests  # noqa: E402

STEPS = 20
PROGRAM = os.path.join(ROOT, "build", "release", "ballast-train")
LOGS = os.path.join(ROOT, "logs")
DROPPED = ("--steps", "--log", "--record-trace", "--dump", "--checkpoint", "--schedule-steps", "--warmup")
LOSS = re.compile(r'"step": ?(\d+), ?"loss": ?([^,]+),')


def losses(path):
    """The loss column as strings, up to STEPS."""
    with open(path, encoding="utf-8") as file:
        return LOSS.findall(file.read())[:STEPS]


def shorter(head, log):
    """The run's command for its first STEPS steps alone, on the same schedule."""
    words, kept = head["command"][1:], []
    while words:
        word = words.pop(0)
        if word.partition("=")[0] not in DROPPED:
            kept.append(word)
        elif "=" not in word and words:
            words.pop(0)
    config = head["config"]
    return [PROGRAM, *kept, "--steps", str(STEPS), "--schedule-steps", str(config["schedule_steps"]), "--warmup",
            str(config["warmup"]), "--log", log]


def first_line(check, name):
    """The header of a shipped log: the command, the seed, what was read."""
    with open(os.path.join(LOGS, name), encoding="utf-8") as file:
        head = json.loads(file.readline())
    check(head["command"][0] == "ballast-train" and isinstance(head["seed"], int), f"{name}: command and seed")
    check([entry["what"] for entry in head["inputs"]][:1] == ["data"] and head["inputs"][0]["crc32"] > 0, f"{name}: input")
    return head


def same_losses(check, folder):
    names = sorted(name for name in os.listdir(LOGS) if name.endswith(".jsonl")) if os.path.isdir(LOGS) else []
    if not names:
        return check.skip("logs/ holds no run")
    heads = {name: first_line(check, name) for name in names}
    name = "ballast.jsonl" if "ballast.jsonl" in heads else names[0]
    head, log = heads[name], os.path.join(folder, "again.jsonl")
    if not os.access(PROGRAM, os.X_OK):
        return check.skip("ballast-train is not built")
    for entry in head["inputs"]:
        if not os.path.isfile(entry["path"]):
            return check.skip(f"no {os.path.basename(entry['path'])} to train on")
        with open(entry["path"], "rb") as file:
            if zlib.crc32(file.read()) != entry["crc32"]:
                return check.skip(f"another {os.path.basename(entry['path'])} than the run's")
    done = subprocess.run(shorter(head, log), capture_output=True, text=True, timeout=300, check=False)
    if not check(done.returncode == 0, f"exit {done.returncode}: {done.stderr}"):
        return None
    with open(log, encoding="utf-8") as file:
        kernel = json.loads(file.readline()).get("kernel")
    if kernel != head.get("kernel"):
        return check.skip(f"matrix products run on '{kernel}' here and on '{head.get('kernel')}' in the shipped run")
    there, here = losses(os.path.join(LOGS, name)), losses(log)
    check(len(here) == STEPS, f"{len(here)} of {STEPS} steps in the new log")
    for (step, old), (_, new) in zip(there, here):
        check(old == new, f"{name}: step {step}: loss {new}, the shipped run has {old}")
    return None


if __name__ == "__main__":
    sys.exit(run_tests(Check(), [same_losses]))
