#!/usr/bin/env python3
"""Published layouts and step times: what tests/cli/search_published.py and fit_published.py find, as bench rows."""
import argparse
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def printed(script, build):
    environment = dict(os.environ, BL_BUILD=str(pathlib.Path(build).resolve()))
    return subprocess.run(["/usr/bin/python3", "-B", str(ROOT / "tests/cli" / script)], stdout=subprocess.PIPE, text=True,
                          env=environment).stdout


def row(name, value, unit, reach=None, better=None, note=""):
    print(json.dumps({"name": name, "value": value, "unit": unit, "reach": reach, "better": better or "higher",
                      "note": note}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    build = parser.parse_args().build
    times = printed("fit_published.py", build)
    mean, steps = re.search(r"steps not fitted: mean error ([\d.]+) % of (\d+)", times).groups()
    row("published step times not fitted, mean error", float(mean), "%", 10, "lower", f"{steps} steps")
    for name, value, n in re.findall(r"^(.*): \d+ steps, efficiency .* ([\d.]+) % of (\d+)$", times, re.M):
        if int(n):
            row(f"  {name}, each by a fit to the others", float(value), "%", None, "lower", f"{n} steps")
    for which, value, n, spread in re.findall(r"^published throughputs (.*): mean error ([\d.]+) % of (\d+), (.*)$", times, re.M):
        row(f"published throughputs {which}, never fitted, mean error", float(value), "%", None, "lower", f"{n} steps, {spread}")
    paxml = [float(x) for x in re.findall(r"([+-][\d.]+) %", re.search(r"^Paxml .*$", times, re.M).group())]
    row("Paxml on 256 to 2048 GPUs from its 128, largest error", max(map(abs, paxml)), "%", 2, "lower",
        ", ".join(map(str, paxml)))
    pairs = re.findall(r"published ([\d.]+) and ([\d.]+) s, predicted ([\d.]+) and ([\d.]+) s", times)
    row("pairs of layouts ordered as published", sum((float(a) > float(b)) == (float(c) > float(d)) for a, b, c, d in pairs),
        "pairs", len(pairs), note="; ".join(f"{a}/{b} s as {c}/{d}" for a, b, c, d in pairs))
    layouts = printed("search_published.py", build)
    for what, good, judged in re.findall(r"^with (.*): (\d+) of (\d+) published", layouts, re.M):
        row(f"published layouts near, with {what}", 100 * int(good) / int(judged), "%", 90, note=f"{good} of {judged}")
    for what, low, high, middle, rest in re.findall(r"^simulated over closed form with (.*): ([\d.]+) to ([\d.]+), median "
                                                    r"([\d.]+), (.*)$", layouts, re.M):
        row(f"simulated over closed form, median, with {what}", float(middle), "x", None, "lower", f"{low} to {high}; {rest}")


main()
