#!/usr/bin/env python3
"""Exchanges planned on the device (--exchange device), by their specification on the CPU: the same run as with the host's
exchange, bit for bit where no expert has copies; rows for which there is no room make a step once more and change nothing.
time limit: 300 s"""
import filecmp
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import BUILD, Check, folder, must, read_log, run, write_model, write_text  # noqa: E402

check = Check()


def log_of(path, *options):
    must("ballast-train", *options, "--log", path)
    return read_log(path)


def column(steps, *names):
    return [[step[name] for name in names] for step in steps]


def imbalances(steps):
    return [[layer["imbalance"] for layer in step["layers"]] for step in steps]


def furthest(a, b):
    return max(abs(x["loss"] - y["loss"]) / y["loss"] for x, y in zip(a, b))


def agree(tmp, base, name, options, copies):
    options = [*base, "--steps", 20, *options]
    host = log_of(f"{tmp}/host", *options)[1]
    header, steps = log_of(f"{tmp}/device", *options, "--exchange", "device")
    tight = log_of(f"{tmp}/tight", *options, "--exchange", "device", "--headroom", 0)[1]
    roomy = log_of(f"{tmp}/roomy", *options, "--exchange", "device", "--headroom", 1000)[1]
    exact = ("loss", "grad_norm", "lr", "fill_bytes", "moved_bytes", "plan_version")
    check(header["config"]["exchange"] == "device", f"{name}: the log's header names no exchange")
    check(len(steps) == 20, f"{name}: {len(steps)} steps")
    redone = [sum(step["redone"] for step in run_steps) for run_steps in (roomy, steps, tight)]
    check(redone[0] == 0 and redone[2] >= 8 and redone[1] <= 12 and redone[1] < redone[2], f"{name}: steps made again: {redone}")
    check(column(steps, *exact) == column(tight, *exact) == column(roomy, *exact), f"{name}: an overflow changes the run")
    check(imbalances(steps) == imbalances(tight) == imbalances(roomy), f"{name}: an overflow changes the loads")
    if copies:
        check(furthest(steps, host) < 1e-6, f"{name}: losses differ from the host's by {furthest(steps, host)}")
        better = [x <= y for a, b in zip(imbalances(steps), imbalances(host)) for x, y in zip(a, b)]
        check(all(better[:4]), f"{name}: loads of the same counts are worse balanced than the host's")
    else:
        check(column(steps, *exact) == column(host, *exact), f"{name}: another run than with the host's exchange")
        check(imbalances(steps) == imbalances(host), f"{name}: other loads than with the host's exchange")
    return redone


with folder() as tmp:
    data = write_text(f"{tmp}/words.txt")
    model = write_model(f"{tmp}/tiny.json", layers=3, hidden=16, sequence=16, attention__head_width=8, ffn__width=32,
                        moe__width=16, moe__first_layer=1)
    base = ["--model", model, "--data", data, "--batch", 24]

    for name, options, copies in (
            ("one rank", [], False),
            ("homes stay", ["--ranks", 4, "--policy", "static"], False),
            ("homes move", ["--ranks", 3, "--policy", "smartmoe:2", "--micro-batches", 2], False),
            ("two groups", ["--ranks", 4, "--ep", 2, "--policy", "smartmoe:3"], False),
            ("copies", ["--ranks", 4, "--policy", "ballast", "--micro-batches", 2], True),
            ("copies of two groups", ["--ranks", 4, "--ep", 2, "--policy", "ballast", "--homes", "free"], True),
            ("uneven slots", ["--ranks", 3, "--slots", "5,3,4", "--policy", "ballast", "--homes", "cost"], True)):
        agree(tmp, base, name, options, copies)

    # What the policy decides and what is recorded are the host's, where the counts are the same.
    trace = f"{tmp}/skewed.blt"
    must("ballast-trace", "gen", "--layers", 2, "--experts", 8, "--ranks", 4, "--steps", 12, "--tokens", 4096, "-o", trace)
    forced = [*base, "--ranks", 4, "--steps", 12, "--gate", f"trace:{trace}", "--policy", "ballast"]
    for exchange in ("host", "device"):
        must("ballast-train", *forced, "--exchange", exchange, "--dump", f"{tmp}/{exchange}.dump", "--record-trace",
             f"{tmp}/{exchange}.blt", "--log", f"{tmp}/{exchange}.log")
    check(filecmp.cmp(f"{tmp}/host.dump", f"{tmp}/device.dump", shallow=False), "the policy decides otherwise")
    for exchange in ("host", "device"):
        must("ballast-trace", "export", "--to", "csv", f"{tmp}/{exchange}.blt", "-o", f"{tmp}/{exchange}.csv")
    check(filecmp.cmp(f"{tmp}/host.csv", f"{tmp}/device.csv", shallow=False), "other counts are recorded")
    _, steps = read_log(f"{tmp}/device.log")
    check(max(step["layers"][0]["copies"] for step in steps) > 0, "the skewed run has no copies")

    # A run that goes on from a checkpoint has no counts to forecast from at first.
    part = [*base, "--ranks", 4, "--policy", "ballast", "--exchange", "device", "--schedule-steps", 12, "--warmup", 2]
    whole = log_of(f"{tmp}/whole", *part, "--steps", 12)[1]
    log_of(f"{tmp}/first", *part, "--steps", 5, "--checkpoint", f"{tmp}/ck")
    rest = log_of(f"{tmp}/rest", *part, "--steps", 12, "--resume", f"{tmp}/ck")[1]
    check(column(rest, "loss", "grad_norm") == column(whole[5:], "loss", "grad_norm"), "going on is another run")

    # Headroom that steps made again have added has an end: room is far from that of a run with much headroom.
    memory = [float(must("ballast-train", *base, "--ranks", 4, "--steps", 400, "--policy", "ballast", "--exchange", "device",
                         *more).split("at most ")[1].split()[0]) for more in ([], ["--headroom", 8])]
    check(memory[0] < 0.75 * memory[1], f"400 steps hold {memory} MB with headroom by itself and with 8")

    # Ranks as processes.
    if shutil.which("mpirun"):
        options = [*base, "--steps", 8, "--policy", "ballast", "--exchange", "device", "--headroom", 0.01]
        threads = log_of(f"{tmp}/threads", *options, "--ranks", 3)[1]
        command = ["mpirun", "--oversubscribe", "-np", 3, BUILD / "ballast-train", *options, "--transport", "mpi", "--log",
                   f"{tmp}/processes"]
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=env, timeout=100)
        check(done.returncode == 0, f"processes: exit {done.returncode}, {done.stderr}")
        check(column(read_log(f"{tmp}/processes")[1], "loss", "grad_norm", "redone") ==
              column(threads, "loss", "grad_norm", "redone"), "processes train otherwise than threads")

    # What needs the host in the middle of a step.
    for words, options in (("--gate gshard drops choices", ["--gate", "gshard"]),
                           ("--gate switch drops choices", ["--gate", "switch"]),
                           ("--late-repair chooses hosts", ["--late-repair", 1.02]),
                           ("shares are solved on the device", ["--policy", "eplb:2"]),
                           ("shares are solved on the device", ["--policy", "fastermoe"]),
                           ("shares are solved on the device", ["--shares", "stale"])):
        code, out, err = run("ballast-train", *base, "--ranks", 2, "--exchange", "device", *options, "--log", f"{tmp}/no")
        lines = err.splitlines()
        check(code == 2 and out == "" and len(lines) == 1 and words in err and "--exchange host" in err,
              f"{options}: exit {code}, {err}")
        check(not os.path.exists(f"{tmp}/no"), f"{options}: a log is left behind")
sys.exit(check.end())
