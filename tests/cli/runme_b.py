#!/usr/bin/env python3
"""RUNME-b.sh: what it refuses, a whole short run, and an interrupt in its middle."""

import json
import os
import signal
import subprocess
import sys
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), p) for p in ("../..", "..")]
from plotting_support.check import ROOT, Check, run_tests  # noqa: E402

SCRIPT = os.path.join(ROOT, "RUNME-b.sh")
BIN = os.path.join(ROOT, "build", "release")
PROGRAMS = ("ballast-trace", "ballast-plan", "ballast-profile", "ballast-train")
POLICIES = ("static", "smartmoe_10", "eplb_10", "ballast", "uniform")


def start(folder, *arguments, **settings):
    """The script in a session of its own, so that a signal to its group is what Ctrl-C is."""
    return subprocess.Popen([SCRIPT, *arguments], cwd=folder, env={**os.environ, **settings}, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process, seconds):
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += "\n(killed by the test: it took too long)"
    return process.returncode, out, err


def corpus(folder):
    """A text of a few tens of thousands of bytes."""
    path = os.path.join(folder, "text")
    with open(path, "w", encoding="ascii") as file:
        file.write("".join(f"the {i * 7919 % 1009}th ship carries {i * i % 613} stones, and stays level; " for i in range(1500)))
    return path


def trace(folder):
    """A folder in the layout of the SmartMoE artifact's moe_trace/: 3 iterations, 2 ranks, 2 layers, 16 experts."""
    path = os.path.join(folder, "moe_trace")
    os.makedirs(path)
    for iteration in (1, 11, 21):
        for rank in (0, 1):
            lines = []
            for layer in range(2):
                row = [8.0 + (e == (layer + iteration) % 16) * 64 - 4 * (e % 2 == 0) + 4 * (e % 2) for e in range(16)]
                lines.append(f"{layer}:{json.dumps([row] * 4)}\n")
            with open(os.path.join(path, f"table_iter{iteration}_rank{rank}.log"), "w", encoding="ascii") as file:
                file.writelines(lines)
    return path


def built():
    return all(os.access(os.path.join(BIN, program), os.X_OK) for program in PROGRAMS)


def refusals(check, folder):
    for code, words, arguments, settings in (
            (2, "unknown argument", ["--fast"], {}), (2, "RANKS=0", [], {"RANKS": "0"}), (2, "STEPS=ten", [], {"STEPS": "ten"}),
            (2, "SEED=", [], {"SEED": "-1"}), (1, "no such file", [], {"CORPUS": "nothing"}),
            (1, "no such folder", [], {"MOE_TRACE": "nothing"})):
        got, out, err = finish(start(folder, *arguments, **settings), 20)
        check(got == code and words in err and out == "", f"{arguments} {settings}: exit {got}: {err}")
        check(len(err.strip().split("\n")) == 1 and not os.listdir(folder), "one sentence, and nothing is made")
    got, out, _ = finish(start(folder, "--help"), 20)
    check(got == 0 and "--quick" in out, "--help")


def whole(check, folder):
    """All stages, few steps, with a trace folder of the artifact's kind."""
    if not built():
        return check.skip("not every program is built")
    code, out, err = finish(start(folder, "--quick", STEPS="12", RANKS="2", CORPUS=corpus(folder), MOE_TRACE=trace(folder)), 400)
    if not check(code == 0, f"exit {code}: {err}\n{out}"):
        return None
    made = os.path.join(folder, next(name for name in os.listdir(folder) if name.startswith("outputs_from_exec_")))
    for name in ("fig8", "fig10", "fig11", "fig12", "fig13", "loss", "load"):
        check(os.path.getsize(os.path.join(made, f"{name}.pdf")) > 1000, f"{name}.pdf")
        check(os.path.getsize(os.path.join(made, f"{name}.png")) > 1000, f"{name}.png")
    for policy in POLICIES:
        with open(os.path.join(made, "logs", f"{policy}.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        check(len(lines) == 13 and lines[0]["seed"] == 1, f"{policy}: twelve steps")
        check(lines[0]["command"][0] == "ballast-train", f"{policy}: the log names the program, not its place")
    check(os.path.getsize(os.path.join(made, "profile.json")) > 10, "a profile")
    check(os.path.getsize(os.path.join(made, "plan.json")) > 10, "a plan")
    check(not os.path.exists(os.path.join(made, "checkpoints")), "nothing temporary stays")
    return None


def interrupt(check, folder):
    """Ctrl-C while training: exit 130, the steps done stay, no program goes on."""
    if not built():
        return check.skip("not every program is built")
    process = start(folder, "--quick", STEPS="100000", RANKS="2", CORPUS=corpus(folder), MOE_TRACE=trace(folder))
    deadline, log = time.monotonic() + 240, None
    while time.monotonic() < deadline and process.poll() is None and not log:
        time.sleep(0.2)
        logs = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names if name == "static.jsonl"]
        log = next((path for path in logs if os.path.getsize(path) > 5000), None)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process, 60)
    check(log is not None, f"training did not start: {out} {err}")
    check(code == 130 and "interrupted; what was finished stays in outputs_from_exec_" in err, f"exit {code}: {err}")
    check("Traceback" not in err, err)
    if log:
        check(not os.path.exists(os.path.join(os.path.dirname(log), "..", "checkpoints")), "nothing temporary stays")
        with open(log, encoding="utf-8") as file:
            lines = file.read().split("\n")
        check(lines[-1] == "" and all(json.loads(line) for line in lines[:-1]), "the log ends with a whole line")
    return None


if __name__ == "__main__":
    sys.exit(run_tests(Check(), [refusals, whole, interrupt]))
