#!/usr/bin/env python3
"""Replays of the recorded trace: imbalance under the ballast policy, late repairs, time of a decision, peak memory."""
import argparse
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data/smartmoe_moe_trace_1-2491.tar.xz"
RUNS = [  # ranks, slots, late repair, mean to reach, percent late to reach
    (4, 9, 0, 1.0035, None),
    (8, 5, 0, 1.0012, None),
    (16, 3, 0, 1.0045, None),
    (8, 5, 1.02, 1.0001, 1.2),
    (16, 3, 1.02, 1.0004, 3.5),
]


def row(name, value, unit, reach=None, better="lower", note=""):
    print(json.dumps({"name": name, "value": value, "unit": unit, "reach": reach, "better": better, "note": note}), flush=True)


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
            command = [build / "ballast-plan", "replay", "--trace", trace, "--ranks", str(ranks), "--slots", str(slots), "--policy", "ballast",
                       "--steps", "121:2491", "--late-repair", str(late), "--json"]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            result = json.loads(child.stdout.read())
            _, status, usage = os.wait4(child.pid, 0)
            assert status == 0, command
            peak = max(peak, usage.ru_maxrss)
            name = f"replay, {ranks} ranks x {slots} slots" + (f", late repair {late}" if late else "")
            row(name + ": mean imbalance", result["imbalance_mean"], "imbalance", mean,
                note=f"p99 {result['imbalance_p99']:.4f}, worst {result['imbalance_worst']:.4f}")
            if percent:
                row(name + ": layer-steps repaired", result["late_percent"], "%", percent, note=f"{result['late_copies']} copies a repair")
            row(name + ": time of a decision", result["decide_mean_us"], "us", note=f"p99 {result['decide_p99_us']:.0f} us")
        row("replay of the recorded trace: peak memory", peak / 1024, "MB", 200, note="at most: the script that starts it counts too")


if __name__ == "__main__":
    main()
