#!/usr/bin/env python3
"""Replays of the recorded trace: imbalance under the ballast policy, late repairs, copies and moves, time of a decision, peak
memory, each against its goal."""
import argparse
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data/smartmoe_moe_trace_1-2491.tar.xz"
RUNS = [  # ranks, slots, late repair, mean to reach, percent late to reach
    (4, 9, 0, 1.0035, None),
    (8, 5, 0, 1.0012, None),
    (16, 3, 0, 1.0045, None),
    (8, 5, 1.02, 1.0001, 1.2),
    (16, 3, 1.02, 1.0004, 3.5),
]
RESTING = [  # ranks, slots, mean to reach where layers rest, 32 recorded steps at most
    (8, 5, 1.0012),
    (16, 3, 1.0045),
]
TIMES = {8: 20, 16: 200}  # microseconds of a decision to reach, mean
WEIGHED = [  # trace, ranks, slots, copy price, late repair, copies to reach at a mean imbalance of 1.05, moves to reach
    ("recorded", 8, 5, 0.031, 0, 4, 25),
    ("recorded", 8, 5, 0.037, 1.1, 4, 25),
    ("mild", 8, 5, 0.019, 0, 2, None),
    ("mild", 8, 5, 0.021, 1.1, 2, None),
    ("recorded", 16, 3, 0.021, 0, 11, None),
    ("recorded", 16, 3, 0.025, 1.1, 11, None),
]


def row(name, value, unit, reach=None, better="lower", note=""):
    print(json.dumps({"name": name, "value": value, "unit": unit, "reach": reach, "better": better, "note": note}), flush=True)


def play(build, trace, ranks, slots, *options):
    """The JSON result and the peak memory in MB."""
    command = [build / "ballast-plan", "replay", "--trace", trace, "--ranks", str(ranks), "--slots", str(slots), "--policy", "ballast",
               "--steps", "121:2491", "--json", *map(str, options)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    result = json.loads(child.stdout.read())
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, command
    return result, usage.ru_maxrss / 1024


def write_counts(build, folder, counts, first, trace):
    """counts[step][layer][expert], recorded every 10 iterations, as a trace."""
    text = pathlib.Path(folder) / (trace + ".text")
    text.mkdir()
    for step, layers in enumerate(counts):
        lines = (f"{n}:{json.dumps([[float(c) for c in row]])}\n" for n, row in enumerate(layers))
        (text / f"table_iter{first + 10 * step}_rank0.log").write_text("".join(lines))
    path = os.path.join(folder, trace + ".blt")
    subprocess.run([build / "ballast-trace", "import", "--from", "smartmoe", text, "-o", path], check=True, stderr=subprocess.DEVNULL)
    return path


def read_counts(build, folder, trace):
    path = os.path.join(folder, "counts.csv")
    subprocess.run([build / "ballast-trace", "export", trace, "--to", "csv", "-o", path], check=True, stderr=subprocess.DEVNULL)
    table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)
    steps, layers = len(np.unique(table[:, 0])), len(np.unique(table[:, 1]))
    out = np.zeros((steps, layers, table.shape[1] - 4), np.int64)
    np.add.at(out, (np.unique(table[:, 0], return_inverse=True)[1], table[:, 1]), table[:, 4:])
    return out


def flatten(counts):
    """Mild skew: counts to the power 0.25, scaled to the sums they had by largest remainder."""
    total = counts.sum(axis=2, keepdims=True)
    exact = counts ** 0.25
    exact *= total / exact.sum(axis=2, keepdims=True)
    out = np.floor(exact).astype(np.int64)
    order = np.argsort(out - exact, axis=2, kind="stable")
    missing = (total - out.sum(axis=2, keepdims=True))
    np.put_along_axis(out, order, np.take_along_axis(out, order, 2) + (np.arange(counts.shape[2]) < missing), 2)
    return out


def bad_homes(build, folder, counts):
    """4 ranks, the 8 hottest experts of the first record together, the next 8, and so on; no history before."""
    order = np.argsort(-counts[11], axis=1, kind="stable")
    home = np.empty_like(order)
    np.put_along_axis(home, order, np.arange(32)[None, :] // 8, 1)
    plan = os.path.join(folder, "bad.json")
    layers = [{"layer": n, "home": row.tolist(), "copies": [], "imbalance": 1, "bound": 1} for n, row in enumerate(home)]
    pathlib.Path(plan).write_text(json.dumps({"version": 1, "placement": {"ranks": 4, "slots": 9, "layers": layers}}))
    trace = write_counts(build, folder, counts[11:], 111, "from111")
    result, _ = play(build, trace, 4, 9, "--plan", plan, "--homes", "cost", "--copy-price", 0)
    row("replay from bad homes, 4 ranks: mean imbalance", result["imbalance_mean"], "imbalance", 1.005)
    row("replay from bad homes, 4 ranks: homes moved", result["moves_per_layer_per_1000"], "a layer per 1000 iterations", 2)


def back_off(build, folder, trace):
    """Layers that rest: on the recorded trace, and where routing stays as it is."""
    for ranks, slots, mean in RESTING:
        result, _ = play(build, trace, ranks, slots, "--back-off", 32)
        name = f"replay with back-off, {ranks} ranks x {slots} slots"
        row(name + ": mean imbalance", result["imbalance_mean"], "imbalance", mean,
            note=f"{result['decided_percent']:.1f} % of layer-steps decided")
        row(name + ": time of a decision", result["decide_mean_us"], "us", TIMES[ranks], note="those left out among them")
    for experts, ranks, skew in ((32, 8, 0.5), (64, 16, 1)):
        stable = os.path.join(folder, "stable.blt")
        subprocess.run([build / "ballast-trace", "gen", "--experts", str(experts), "--zipf", str(skew), "--drift", "0", "--jumps", "0",
                        "--bursts", "0", "--steps", "250", "--stride", "10", "-o", stable], check=True, stderr=subprocess.DEVNULL)
        every, rests = (play(build, stable, ranks, experts // ranks + 1, *o)[0] for o in ([], ["--back-off", 32]))
        name = f"replay of stable routing, {experts} experts on {ranks} ranks, back-off"
        row(name + ": decisions saved", every["decided_percent"] / rests["decided_percent"], "x", 5, "higher")
        row(name + ": their time saved", every["decide_mean_us"] / rests["decide_mean_us"], "x", 5, "higher")
        row(name + ": mean imbalance added", rests["imbalance_mean"] - every["imbalance_mean"], "imbalance", 1e-5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    build = pathlib.Path(parser.parse_args().build).resolve()
    if not DATA.exists():
        row("replay of the recorded trace", None, "", note="no recorded trace beside the project")
        return
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(DATA) as archive:
            archive.extractall(folder)
        trace = os.path.join(folder, "trace.blt")
        text = next(p for p in pathlib.Path(folder).iterdir() if p.is_dir())
        subprocess.run([build / "ballast-trace", "import", "--from", "smartmoe", text, "-o", trace], check=True, stderr=subprocess.DEVNULL)
        peak = 0
        for ranks, slots, late, mean, percent in RUNS:
            result, memory = play(build, trace, ranks, slots, "--late-repair", late, "--regret", 32)
            peak = max(peak, memory)
            name = f"replay, {ranks} ranks x {slots} slots" + (f", late repair {late}" if late else "")
            row(name + ": mean imbalance", result["imbalance_mean"], "imbalance", mean,
                note=f"p99 {result['imbalance_p99']:.4f}, worst {result['imbalance_worst']:.4f}, "
                     f"{result['copies_changed']:.2f} copies changed a step, regret {result['regret']:.5f}")
            if percent:
                row(name + ": layer-steps repaired", result["late_percent"], "%", percent, note=f"{result['late_copies']} copies a repair")
                row(name + ": worst imbalance", result["imbalance_worst"], "imbalance", 1.02)
            row(name + ": time of a decision", result["decide_mean_us"], "us", TIMES.get(ranks), note=f"p99 {result['decide_p99_us']:.0f} us")
        counts = read_counts(build, folder, trace)
        traces = {"recorded": trace, "mild": write_counts(build, folder, flatten(counts), 1, "mild")}
        for which, ranks, slots, price, late, copies, moves in WEIGHED:
            result, _ = play(build, traces[which], ranks, slots, "--homes", "cost", "--copy-price", price, "--late-repair", late)
            name = f"replay, {which}, {ranks} ranks, a copy costs {price}" + (f", late repair {late}" if late else "")
            row(name + ": mean imbalance", result["imbalance_mean"], "imbalance", 1.05,
                note=f"{result['late_percent']:.1f} % of layer-steps repaired" if late else "")
            row(name + ": copies", result["copies"], "a layer", copies)
            row(name + ": homes moved", result["moves_per_layer_per_1000"], "a layer per 1000 iterations", moves)
        bad_homes(build, folder, counts)
        back_off(build, folder, trace)
        row("replay of the recorded trace: peak memory", peak, "MB", 200, note="at most: the script that starts it counts too")


if __name__ == "__main__":
    main()
