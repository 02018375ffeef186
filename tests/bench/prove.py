#!/usr/bin/env python3
"""How many layers have their fewest copies, or fewest moves and copies, proved within five seconds, and what those are: layers of
the recorded trace, the same under mild skew (counts to the power 0.25), and made-up layers of 256 experts on 32 and 64 ranks.
Homes alone are in plan_homes, the even split in plan_even and even.py."""
import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

ARCHIVE = Path(__file__).resolve().parents[3] / "shared/data/smartmoe_moe_trace_1-2491.tar.xz"
STEPS, FEW = range(121, 2491, 300), (121, 1321)
SECONDS = 5


def row(name, value, unit, reach, better, note=""):
    print(json.dumps({"name": name, "value": value, "unit": unit, "reach": reach, "better": better, "note": note}), flush=True)


def unpack(folder):
    wanted = tuple(f"table_iter{step}_" for step in STEPS)
    with tarfile.open(ARCHIVE) as file:
        for member in file:
            name = Path(member.name).name
            if name.startswith(wanted):
                (Path(folder) / name).write_bytes(file.extractfile(member).read())


def soften(folder, out):
    """The summed counts of every layer to the power 0.25, as one text file a step for the importer."""
    for step in FEW:
        counts = 0
        for path in sorted(Path(folder).glob(f"table_iter{step}_rank*.log")):
            counts = counts + np.array([np.sum(json.loads(line.split(":", 1)[1]), axis=0) for line in path.read_text().splitlines()])
        mild = counts ** 0.25
        whole = np.floor(mild / mild.sum(1, keepdims=True) * 262144)
        whole[:, 0] += 262144 - whole.sum(1)
        text = "".join(f"{layer}:{json.dumps([list(values)])}\n" for layer, values in enumerate(whole))
        (Path(out) / f"table_iter{step}_rank0.log").write_text(text)


class Bench:
    def __init__(self, build):
        self.build = build

    def run(self, program, *arguments):
        return subprocess.run([self.build / program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout

    def prove(self, trace, steps, *options):
        layers = []
        for step in steps:
            out = self.run("ballast-plan", "place", "--trace", trace, "--steps", f"{step}:{step}", "--prove", SECONDS, "--json",
                           *options)
            layers += json.loads(out)["prove"]["layers"]
        return layers

    def report(self, name, reach, layers):
        proved = sum(layer["status"] in ("optimal", "infeasible") and layer["seconds"] <= SECONDS + 0.3 for layer in layers)
        found = [layer for layer in layers if layer["copies"] is not None]
        seconds = [layer["seconds"] for layer in layers]
        row(f"{name}: proved", 100 * proved / len(layers), "%", reach, "higher",
            f"{len(layers)} layers; seconds: mean {np.mean(seconds):.4f}, worst {max(seconds):.2f}")
        if found:
            row(f"{name}: copies", np.mean([layer["copies"] for layer in found]), "copies", None, "lower",
                f"mean a layer; proved: at least {np.mean([layer['bound'] for layer in found]):.3f}; "
                f"moves {np.mean([layer['moves'] for layer in found]):.2f}")


def recorded(bench, folder):
    trace, mild, start = f"{folder}/recorded.blt", f"{folder}/mild.blt", f"{folder}/start.json"
    text, soft = Path(folder) / "text", Path(folder) / "soft"
    text.mkdir()
    soft.mkdir()
    unpack(text)
    soften(text, soft)
    bench.run("ballast-trace", "import", "--from", "smartmoe", text, "-o", trace)
    bench.run("ballast-trace", "import", "--from", "smartmoe", soft, "-o", mild)
    for homes in ("fixed", "free"):
        for ranks, within, reach in ((8, 1.05, 90), (16, 1.1, 90), (16, 1.02, None)):
            bench.report(f"fewest copies, {ranks} ranks within {within}, homes {homes}", reach,
                         bench.prove(trace, STEPS, "--ranks", ranks, "--within", within, "--homes", homes))
        for ranks, within in ((8, 1.05), (16, 1.05)):
            bench.report(f"fewest copies, mild skew, {ranks} ranks within {within}, homes {homes}", None,
                         bench.prove(mild, FEW, "--ranks", ranks, "--within", within, "--homes", homes))
    bench.run("ballast-plan", "place", "--trace", mild, "--steps", f"{FEW[0]}:{FEW[0]}", "--ranks", 4, "--slots", 8, "--policy",
              "static", "-o", start)
    bench.report("fewest moves, mild skew, no copy slots, 4 ranks within 1.02", None,
                 bench.prove(mild, FEW[:1], "--ranks", 4, "--slots", 8, "--from", start, "--within", 1.02))


def made_up(bench, folder):
    for zipf in (0.3, 0.7, 1.1):
        trace = f"{folder}/zipf{zipf}.blt"
        bench.run("ballast-trace", "gen", "--experts", 256, "--layers", 4, "--ranks", 4, "--steps", 1, "--zipf", zipf, "--tokens",
                  65536, "--top-k", 8, "--seed", 15, "-o", trace)
        for ranks in (32, 64):
            bench.report(f"fewest copies, 256 experts on {ranks} ranks, Zipf {zipf}, within 1.05, homes fixed", None,
                         bench.prove(trace, (1,), "--ranks", ranks, "--within", 1.05, "--homes", "fixed"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    bench = Bench(Path(parser.parse_args().build).resolve())
    with tempfile.TemporaryDirectory() as folder:
        if ARCHIVE.exists():
            recorded(bench, folder)
        else:
            row("fewest copies proved", None, "%", 90, "higher", "skipped: the recorded trace is not in ../shared/data")
        made_up(bench, folder)


if __name__ == "__main__":
    sys.exit(main())
