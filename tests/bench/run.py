#!/usr/bin/env python3
"""Runs every bench of the project and prints one table; the same rows go to a JSON file.

A bench is a program tests/bench/{plan,exec}_*.c (built by make) or a script tests/bench/*.py. Each prints JSON lines
    {"name": ..., "value": number or null, "unit": ..., "reach": number or null, "better": "lower" | "higher", "note": ...}
"reach" is the goal; "better" says on which side of it a value is good (default: "higher" for ratios and rates, "lower" for
times and sizes). A row with value null was skipped; its note says why. All other output of a bench goes through to stderr.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
LOWER_UNITS = ("us", "ms", "s", "bytes", "MB", "imbalance")


def is_good(row):
    if row["value"] is None or row.get("reach") is None:
        return None
    lower = row.get("better", "lower" if row["unit"] in LOWER_UNITS else "higher") == "lower"
    return row["value"] <= row["reach"] if lower else row["value"] >= row["reach"]


def run_bench(command, timeout):
    rows = []
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=timeout, text=True)
    except subprocess.TimeoutExpired:
        return [{"name": pathlib.Path(command[-1]).name, "value": None, "unit": "", "note": f"no end within {timeout} s"}], False
    for line in done.stdout.splitlines():
        try:
            row = json.loads(line)
            assert isinstance(row, dict) and "name" in row and "value" in row and "unit" in row
            rows.append(row)
        except (ValueError, AssertionError):
            print(line, file=sys.stderr)
    return rows, done.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release", help="folder with the built programs")
    parser.add_argument("--json", default="build/bench.json", help="where the rows go")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one bench")
    parser.add_argument("pattern", nargs="?", default="", help="only benches whose name contains this")
    options = parser.parse_args()

    build = pathlib.Path(options.build)
    benches = [[str(p)] for p in sorted((build / "tests/bench").glob("*_*")) if p.suffix == ""]
    benches += [["/usr/bin/python3", str(p), "--build", str(build)] for p in sorted(HERE.glob("*.py")) if p.name != "run.py"]
    benches = [b for b in benches if options.pattern in " ".join(b)]

    rows, failed = [], []
    for bench in benches:
        name = pathlib.Path(bench[-1] if len(bench) == 1 else bench[1]).name
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.monotonic()
        new, ok = run_bench(bench, options.timeout)
        print(f"{name}: {len(new)} rows in {time.monotonic() - start:.1f} s", file=sys.stderr)
        rows += [dict(row, bench=name) for row in new]
        if not ok:
            failed.append(name)

    width = max([len(r["name"]) for r in rows] + [10])
    print(f"{'what':<{width}}  {'measured':>12}  {'unit':<10}  {'reach':>10}")
    for row in rows:
        value = "skipped" if row["value"] is None else f"{row['value']:.5g}"
        reach = "" if row.get("reach") is None else f"{row['reach']:.5g}"
        verdict = {True: "reached", False: "SHORT", None: ""}[is_good(row)]
        print(f"{row['name']:<{width}}  {value:>12}  {row['unit']:<10}  {reach:>10}  {verdict:<8} {row.get('note', '')}".rstrip())
    pathlib.Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(options.json).write_text(json.dumps({"version": 1, "rows": rows, "failed": failed}, indent=1) + "\n")
    for name in failed:
        print(f"bench {name} failed", file=sys.stderr)
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
