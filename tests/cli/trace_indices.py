"""ballast-trace gen to a wanted Gini coefficient, Herfindahl index and total variation, and what stats says of them, against
indices and drift worked out here from the exported counts."""
import csv
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.programs import Check  # noqa: E402

PROGRAM = os.path.join(os.environ.get("BL_BUILD", ROOT / "build/release"), "ballast-trace")

check = Check()


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def loads_of(path):
    """loads[layer][step][expert], summed over ranks and micro-batches; the sums of rows; the largest count."""
    rows = csv.reader(io.StringIO(run("export", path, "--to", "csv").stdout))
    next(rows)
    loads, sums, largest = {}, set(), 0
    for row in rows:
        step, layer, _, _, *counts = map(int, row)
        old = loads.setdefault(layer, {}).setdefault(step, [0] * len(counts))
        for e, count in enumerate(counts):
            old[e] += count
        sums.add(sum(counts))
        largest = max(largest, max(counts))
    return [[loads[layer][step] for step in sorted(loads[layer])] for layer in sorted(loads)], sums, largest


def gini(loads):
    """From its definition: the mean difference of all pairs over twice the mean."""
    n, total = len(loads), sum(loads)
    return sum(abs(a - b) for a in loads for b in loads) / (2 * n * total)


def herfindahl(loads):
    return sum(load * load for load in loads) / sum(loads) ** 2


def distance(a, b):
    return 0.5 * sum(abs(x / sum(a) - y / sum(b)) for x, y in zip(a, b))


def mean(values):
    return sum(values) / len(values)


def percentile_99(values):
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def near(a, b, tolerance=1e-7):
    return (a is None and b is None) or (a is not None and b is not None and abs(a - b) <= tolerance)


def check_stats(path, loads, lags):
    stats = json.loads(run("stats", path, "--ranks", 2, "--json", "--lags", ",".join(map(str, lags))).stdout)
    everything = [[] for _ in lags]
    for layer, steps in enumerate(loads):
        said = stats["layers"][layer]
        check(near(said["gini"], mean(list(map(gini, steps)))), f"layer {layer}: Gini {said['gini']}")
        check(near(said["herfindahl"], mean(list(map(herfindahl, steps)))), f"layer {layer}: Herfindahl {said['herfindahl']}")
        for i, lag in enumerate(lags):
            moved = [distance(steps[t], steps[t - lag]) for t in range(lag, len(steps))]
            everything[i] += moved
            check(near(said["drift"][i], mean(moved) if moved else None), f"layer {layer}: drift over {lag}")
            check(near(said["drift_p99"][i], percentile_99(moved) if moved else None), f"layer {layer}: p99 of drift over {lag}")
    check(near(stats["all"]["herfindahl"], mean([mean(list(map(herfindahl, steps))) for steps in loads])), "Herfindahl of all")
    for i in range(len(lags)):
        check(near(stats["all"]["drift_p99"][i], percentile_99(everything[i]) if everything[i] else None), "p99 of drift of all")


def check_targets(path):
    shapes = [(8, 1, 4096, 40), (32, 2, 2048, 25), (64, 8, 1024, 12)]
    for experts, top_k, tokens, steps in shapes:
        wishes = [("gini", gini, [0.02, 0.3, 0.7]), ("herfindahl", herfindahl, [1 / experts, 1.5 / experts, 0.6 / top_k])]
        for name, index, values in wishes:
            for value in values:
                for moved in (None, 0, 0.004, 0.03):
                    if moved and value in (0.02, 1 / experts):  # loads that are nearly equal lie near one another
                        continue
                    wish = [f"--{name}", value] + ([] if moved is None else ["--total-variation", moved])
                    made = run("gen", "--layers", 2, "--experts", experts, "--top-k", top_k, "--ranks", 4, "--micro-batches", 3,
                               "--tokens", tokens, "--steps", steps, *wish, "-o", path)
                    if not check(made.returncode == 0, f"{experts} experts, {wish}: {made.stderr}"):
                        continue
                    loads, sums, largest = loads_of(path)
                    check(sums == {tokens * top_k} and largest <= tokens, f"{experts} experts, {wish}: rows")
                    for layer, all_steps in enumerate(loads):
                        off = max(abs(index(step) - value) for step in all_steps)
                        check(off <= 0.001, f"{experts} experts, {wish}, layer {layer}: the index is {off} off")
                        if moved is not None:
                            off = max(abs(distance(a, b) - moved) for a, b in zip(all_steps, all_steps[1:]))
                            check(off <= 0.001, f"{experts} experts, {wish}, layer {layer}: the total variation is {off} off")
                    if moved == 0.03:
                        check_stats(path, loads, [1, 2, 7, steps - 1, steps])
                        check(distance(loads[0][0], loads[0][-1]) > 0.045, f"{experts} experts, {wish}: steps far apart move more")


def check_order(path):
    """Popularity moves and does not jump about: the hottest expert of a slow drift stays for a while, then changes."""
    run("gen", "--layers", 4, "--experts", 16, "--steps", 400, "--ranks", 1, "--gini", 0.5, "--total-variation", 0.03, "-o", path)
    loads, _, _ = loads_of(path)
    check_stats(path, loads, [1, 3, 250])
    for layer, steps in enumerate(loads):
        hottest = [step.index(max(step)) for step in steps]
        kept = mean([a == b for a, b in zip(hottest, hottest[1:])])
        check(kept > 0.9 and len(set(hottest)) > 1, f"layer {layer}: the hottest expert stays in {kept} of the steps, {len(set(hottest))} in all")


def check_seed(work):
    options = ("gen", "--steps", 6, "--layers", 2, "--gini", 0.5, "--total-variation", 0.02)
    for name, more in (("a", ()), ("b", ()), ("c", ("--seed", 2))):
        run(*options, *more, "-o", f"{work}/{name}")
    a, b, c = (Path(f"{work}/{name}").read_bytes() for name in "abc")
    check(a == b, "the same seed gives the same file")
    check(a != c, "another seed gives another")


def check_refused(path):
    for code, part, *arguments in (
            (1, "1 / experts = 0.03125", "--herfindahl", 0.03), (1, "1 / top-k = 0.5", "--herfindahl", 0.7),
            (2, "--herfindahl", "--herfindahl", 1.2), (2, "--gini", "--gini", 1.01), (2, "--gini", "--gini", -0.1),
            (1, "= 0.9375", "--gini", 0.95), (2, "exclude", "--gini", 0.3, "--herfindahl", 0.3), (2, "exclude", "--gini", 0.3, "--zipf", 1),
            (2, "exclude", "--gini", 0.3, "--top-share", 0.3), (2, "needs --gini", "--total-variation", 0.1),
            (2, "needs --gini", "--tolerance", 0.1), (2, "exclude", "--gini", 0.3, "--total-variation", 0.1, "--drift", 0.1),
            (2, "--total-variation", "--gini", 0.3, "--total-variation", 1.5),
            (1, "step 2, layer 0", "--gini", 0.3, "--total-variation", 1), (1, "step 1, layer 0", "--gini", 0.3, "--tokens", 4, "--ranks", 1)):
        result = run("gen", *arguments, "-o", path)
        check(result.returncode == code and part in result.stderr and result.stderr.count("\n") == 1 and not os.path.exists(path),
              f"{arguments}: expected {code} and \"{part}\", found {result.returncode}: {result.stderr!r}")
    loose = run("gen", "--gini", 0.3, "--tokens", 4, "--ranks", 1, "--tolerance", 0.2, "-o", path)
    check(loose.returncode == 0, f"a wider tolerance helps: {loose.stderr}")


def main():
    with tempfile.TemporaryDirectory() as work:
        check_refused(f"{work}/x")
        check_targets(f"{work}/t")
        check_order(f"{work}/o")
        check_seed(work)
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
