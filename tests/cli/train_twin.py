#!/usr/bin/env python3
"""A twin of the small model in PyTorch, from the same initial checkpoint on the same sequences: the same losses within 1e-4
over 20 steps and the same mean within 0.5 % at the end. Skipped where PyTorch is absent.
time limit: 600 s"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import QUICK, ROOT, Check, folder, must, read_log, text_file, train, write_model  # noqa: E402

check = Check()


def twin(checkpoint, data, steps, schedule):
    """Loss and gradient norm of every step, or None without PyTorch."""
    done = subprocess.run(["/usr/bin/python3", "-B", str(ROOT / "tests/peer/torch_twin.py"), "--checkpoint", checkpoint,
                           "--data", str(data), "--steps", str(steps), "--schedule-steps", str(schedule), "--threads", "1"],
                          stdout=subprocess.PIPE, text=True, timeout=500)
    if done.returncode == 77:
        return None
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(tmp, name, options, steps, schedule):
    must("ballast-train", *options, "--steps", 0, "--checkpoint", f"{tmp}/{name}.ck")
    theirs = twin(f"{tmp}/{name}.ck", options[options.index("--data") + 1], steps, schedule)
    if theirs is None:
        check.skip("PyTorch is absent (python3-torch)")
        return
    train(f"{tmp}/{name}.log", *options, "--steps", steps, "--schedule-steps", schedule, "--ranks", 2, "--policy", "ballast")
    ours = read_log(f"{tmp}/{name}.log")[1]
    check(len(ours) == len(theirs) == steps, f"{name}: {len(theirs)} steps of {steps}")
    for key, tolerance in (("loss", 1e-4), ("grad_norm", 1e-3)):
        worst = max(abs(a[key] - b[key]) / b[key] for a, b in zip(ours[:20], theirs[:20]))
        check(worst < tolerance, f"{name}: {key} differs by {worst} within 20 steps")
    if steps >= 100:
        means = [sum(s["loss"] for s in run[-50:]) / 50 for run in (ours, theirs)]
        check(abs(means[0] / means[1] - 1) < 0.005, f"{name}: mean losses of the last 50 steps are {means}")


with folder() as tmp:
    data = text_file(tmp)
    tiny = write_model(f"{tmp}/tiny.json")
    dense = write_model(f"{tmp}/dense.json", layers=4, moe__every=2, moe__top_k=3)
    compare(tmp, "tiny", ["--model", tiny, "--data", data], 200, 200)
    compare(tmp, "every-second-layer", ["--model", dense, "--data", data, "--seed", 3], 20, 100)
    if not QUICK:
        compare(tmp, "default", ["--data", data], 20, 200)
sys.exit(check.end())
