#!/usr/bin/env python3
"""How many layers of the recorded trace have their fewest copies proved within five seconds, and how many copies that is."""
import argparse
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = Path(__file__).resolve().parents[3] / "shared/data/smartmoe_moe_trace_1-2491.tar.xz"
STEPS = range(121, 2491, 300)


def row(name, value, unit, reach, better, note):
    print(json.dumps({"name": name, "value": value, "unit": unit, "reach": reach, "better": better, "note": note}), flush=True)


def unpack(folder):
    wanted = tuple(f"table_iter{step}_" for step in STEPS)
    with tarfile.open(ARCHIVE) as file:
        for member in file:
            name = Path(member.name).name
            if name.startswith(wanted):
                (Path(folder) / name).write_bytes(file.extractfile(member).read())


def prove(program, trace, ranks, within, homes):
    layers = []
    for step in STEPS:
        out = subprocess.run([program, "place", "--trace", trace, "--steps", f"{step}:{step}", "--ranks", str(ranks), "--homes",
                              homes, "--prove", "5", "--within", str(within), "--json"], check=True, capture_output=True)
        layers += json.loads(out.stdout)["prove"]["layers"]
    return layers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    build = Path(parser.parse_args().build)
    if not ARCHIVE.exists():
        row("fewest copies proved", None, "%", 90, "higher", "skipped: the recorded trace is not in ../shared/data")
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(folder)
        trace = f"{folder}/recorded.blt"
        subprocess.run([build / "ballast-trace", "import", "--from", "smartmoe", folder, "-o", trace], check=True,
                       capture_output=True)
        for ranks, within in ((8, 1.05), (16, 1.1)):
            for homes in ("fixed", "free"):
                layers = prove(build / "ballast-plan", trace, ranks, within, homes)
                proved = sum(layer["status"] == "optimal" and layer["seconds"] <= 5.3 for layer in layers)
                copies = sum(layer["copies"] for layer in layers) / len(layers)
                seconds = [layer["seconds"] for layer in layers]
                name = f"fewest copies, {ranks} ranks within {within}, homes {homes}"
                row(f"{name}: proved", 100 * proved / len(layers), "%", 90, "higher",
                    f"{len(layers)} layers; seconds: mean {sum(seconds) / len(seconds):.4f}, worst {max(seconds):.2f}")
                row(f"{name}: copies", copies, "copies", None, "lower", "mean a layer")


main()
