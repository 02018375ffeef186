#!/usr/bin/env python3
"""Training: throughput of the default model on two ranks against the machine's roofline and against a PyTorch twin, and the
cost of skewed routing under `ballast` against routing that is forced to be even. Ratios of medians in one run."""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The default model: weights that one token meets (attention 4 H^2, gate E H, two experts of 2 H F, a layer; tied output).
HIDDEN, WIDTH, LAYERS, EXPERTS, TOP_K, VOCABULARY, SEQUENCE, BATCH = 256, 1024, 4, 8, 2, 256, 128, 8
MACS = LAYERS * (4 * HIDDEN**2 + EXPERTS * HIDDEN + TOP_K * 2 * HIDDEN * WIDTH) + VOCABULARY * HIDDEN
PARAMETERS = LAYERS * (4 * HIDDEN**2 + EXPERTS * HIDDEN + EXPERTS * 2 * HIDDEN * WIDTH) + (VOCABULARY + SEQUENCE) * HIDDEN


def row(name, value, unit, reach=None, note=""):
    print(json.dumps({"name": name, "value": value, "unit": unit, "reach": reach, "note": note}), flush=True)


def text(folder):
    rng = random.Random(1)
    words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randint(2, 7))) for _ in range(500)]
    path = f"{folder}/words.txt"
    with open(path, "w", encoding="ascii") as file:
        file.write(" ".join(rng.choices(words, [1 / (i + 1) for i in range(len(words))], k=80000)))
    return path


def step_times(build, folder, *arguments, skip=3):
    """Microseconds of every step behind the first few."""
    log = f"{folder}/bench.jsonl"
    subprocess.run([f"{build}/ballast-train", "--log", log, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    with open(log, encoding="utf-8") as file:
        return [json.loads(line)["step_us"] for line in list(file)[1 + skip:]]


def undisturbed(tries):
    """The mean step: of each step the fastest of all tries, since the same step does the same work in every try."""
    return statistics.mean(min(times) for times in zip(*tries))


def rates(build):
    out = subprocess.run([f"{build}/tests/bench/exec_roofline", "2"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line)["value"] for line in out.splitlines()]


def roofline(build, folder, data):
    """Rates and steps measured in turn, best against best within a try, so that a busy neighbour slows both sides."""
    shares, times = [], []
    for _ in range(5):
        gflops, gbps = rates(build)
        us = min(step_times(build, folder, "--data", data, "--ranks", 2, "--steps", 10, "--policy", "ballast"))
        best_us = 6e-3 * MACS * BATCH * SEQUENCE / gflops + 28e-3 * PARAMETERS / gbps
        shares.append(best_us / us)
        times.append(us)
    row("training, 2 ranks on 2 cores", BATCH * SEQUENCE * 1e6 / min(times), "tokens/s")
    row("training against the roofline", statistics.median(shares), "ratio", 0.5,
        f"tries: {', '.join(f'{share:.2f}' for share in shares)}")
    return min(times)


def twin(build, folder, data, ours_us):
    checkpoint = f"{folder}/start"
    subprocess.run([f"{build}/ballast-train", "--data", data, "--steps", "0", "--checkpoint", checkpoint], check=True,
                   stdout=subprocess.DEVNULL)
    command = ["/usr/bin/python3", "-B", str(HERE.parent / "peer/torch_twin.py"), "--checkpoint", checkpoint, "--data", data,
               "--steps", "12", "--threads", "2"]
    tries = []
    for _ in range(2):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode == 77:
            row("training against a PyTorch twin", None, "ratio", 2, "skipped: PyTorch is absent (python3-torch)")
            return
        tries.append([json.loads(line)["step_us"] for line in done.stdout.splitlines()[3:]])
    row("training against a PyTorch twin", min(map(min, tries)) / ours_us, "ratio", 2, "2 threads; best step against best step")


def skew(build, folder, data):
    trace = f"{folder}/skew.blt"
    subprocess.run([f"{build}/ballast-trace", "gen", "--experts", "8", "--ranks", "2", "--layers", "4", "--steps", "40",
                    "--top-share", "0.36", "--seed", "1", "-o", trace], check=True, stdout=subprocess.DEVNULL)
    common = ["--data", data, "--ranks", 2, "--batch", 32, "--micro-batches", 4, "--steps", 6]
    kinds = {"even": ["--gate", "uniform", "--policy", "static"], "ballast": ["--gate", f"trace:{trace}", "--policy", "ballast"],
             "static": ["--gate", f"trace:{trace}", "--policy", "static"]}
    tries = {kind: [] for kind in kinds}
    for _ in range(4):
        for kind, options in kinds.items():
            tries[kind].append(step_times(build, folder, *common, *options, skip=1))
    us = {kind: undisturbed(tries[kind]) for kind in kinds}
    row("skewed routing under ballast against even routing", us["even"] / us["ballast"], "ratio", 0.9, "4 micro-batches a step")
    row("skewed routing under static against even routing", us["even"] / us["static"], "ratio")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release")
    build = os.path.abspath(parser.parse_args().build)
    with tempfile.TemporaryDirectory() as folder:
        data = text(folder)
        ours = roofline(build, folder, data)
        skew(build, folder, data)
        twin(build, folder, data, ours)
    return 0


sys.exit(main())
