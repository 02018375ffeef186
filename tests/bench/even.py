#!/usr/bin/env python3
"""The even split against EPLB's rule in PyTorch on one thread, on the same loads in one run: results must agree with
planner/baselines/eplb, times are compared. Layers of the recorded trace too."""
import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
ARCHIVE = Path(__file__).resolve().parents[3] / "shared/data/smartmoe_moe_trace_1-2491.tar.xz"
LAYERS = 58


def row(name, value, unit, reach, note=""):
    print(json.dumps({"name": name, "value": value, "unit": unit, "reach": reach, "better": "higher", "note": note}), flush=True)


def made_up(kind, parameter, seed):
    rng = np.random.default_rng(seed)
    if kind == "Zipf":
        popular = np.arange(1, 257) ** -parameter * rng.uniform(0.95, 1.05, (LAYERS, 256))
        return np.floor(10000 * rng.permuted(popular, axis=1))
    return np.floor(10000 * np.exp(parameter * rng.normal(size=(LAYERS, 256))))


def recorded():
    load = []
    with tarfile.open(ARCHIVE) as file:
        step = {}
        for member in file:
            name = Path(member.name).name
            if name.startswith(("table_iter121_", "table_iter1201_", "table_iter2401_")):
                text = file.extractfile(member).read().decode()
                counts = [np.array(json.loads(line.split(":", 1)[1])).sum(0) for line in text.splitlines()]
                step.setdefault(name.split("_")[1], []).append(counts)
        for counts in step.values():
            load.append(np.sum(counts, axis=0))
    return np.concatenate(load)


def ours(build, load, ranks, slots):
    with tempfile.NamedTemporaryFile("w", suffix=".loads") as file:
        for layer in load:
            file.write(f"{ranks} {slots} {len(layer)} " + " ".join(str(int(x)) for x in layer) + "\n")
        file.flush()
        out = subprocess.run([str(build / "tests/bench/plan_even"), file.name], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def excess(load, replicas):
    part = replicas / replicas.sum(1, keepdims=True)
    return (part * load[:, None, :]).sum(2).max(1) * replicas.shape[1] / load.sum(1) - 1


def against_pytorch(build, load, ranks, name, reach):
    import torch
    from peer import eplb_torch
    torch.set_num_threads(1)
    slots = 256 // ranks + 1
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        eplb_torch.place(load, ranks, ranks * slots)
        seconds.append(time.perf_counter() - start)
    layers = ours(build, load, ranks, slots)
    torch_us, our_us = np.median(seconds) / len(load) * 1e6, np.median([layer["us"] for layer in layers])
    theirs = excess(load, eplb_torch.place(load, ranks, ranks * slots, dtype=torch.float64).numpy())
    if not np.allclose(theirs, [layer["theirs"] for layer in layers], atol=1e-9):
        raise SystemExit(f"{name}: planner/baselines/eplb and the PyTorch code differ")
    times = theirs.mean() / np.mean([layer["ours"] for layer in layers])
    row(f"even split, {name}: EPLB's excess over ours", times, "x", reach, f"{theirs.mean():.6f} against {theirs.mean() / times:.6f}")
    row(f"even split, {name}: faster than EPLB in PyTorch", torch_us / our_us, "x", 100 if reach else None,
        f"{torch_us:.0f} against {our_us:.1f} us a layer, medians; all layers in one call there, one by one here")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    build = Path(parser.parse_args().build)
    if ARCHIVE.exists():
        load = recorded()
        for ranks, slots in ((8, 5), (8, 8), (16, 3), (16, 4)):
            layers = ours(build, load, ranks, slots)
            theirs, mine = (np.mean([layer[key] for layer in layers]) for key in ("theirs", "ours"))
            row(f"even split, recorded layers, {ranks} ranks of {slots} slots: EPLB's excess over ours", theirs / mine, "x", None,
                f"{theirs:.6f} against {mine:.6f}, {np.median([layer['us'] for layer in layers]):.0f} us, {len(layers)} layers")
    try:
        import torch  # noqa: F401
    except ImportError:
        row("even split: faster than EPLB in PyTorch", None, "x", 100, "skipped: PyTorch is not installed (python3-torch)")
        return
    seed = int(os.environ.get("BL_BENCH_SEED", 71))
    for ranks in (32, 64):
        for kind, parameter, reach in (("Zipf", 0.3, 5), ("Zipf", 0.7, 5), ("log-normal", 1.0, None)):
            against_pytorch(build, made_up(kind, parameter, seed), ranks, f"256 experts on {ranks} ranks, {kind} {parameter}", reach)


main()
