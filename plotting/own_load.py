"""The heat map's numbers: an expert's share of its layer's tokens over time, from a recorded trace in the log folder.

Traces are binary (.blt); `ballast-trace export --to csv` turns one into text. A CSV that lies there is taken as it is."""

import os
import shutil
import subprocess

from plotting.errors import LogError
from plotting.formats.loads import parse_loads, read_loads

COLUMNS = 200  # a picture shows no more; neighbouring steps are averaged
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def build(figure, logdir):
    """Fills figure from a CSV, else a .blt, of the folder: that of the static run, else the first."""
    names = sorted(os.listdir(logdir), key=lambda name: (not name.startswith("static"), name))
    found = {end: [name for name in names if name.endswith(end)] for end in (".csv", ".blt")}
    try:
        if found[".csv"]:
            name = found[".csv"][0]
            table = read_loads(os.path.join(logdir, name))
        elif found[".blt"]:
            name = found[".blt"][0]
            table = _export(os.path.join(logdir, name))
        else:
            figure.lacks("load: no recorded trace (*.blt, or *.csv as ballast-trace exports it)")
            return
    except LogError as error:
        figure.lacks(f"load: {error}")
        return
    layers = []
    for layer, rows in enumerate(table.loads):
        shares = [[count / (sum(row) or 1) for count in row] for row in _thin(rows)]
        layers.append({"layer": layer, "share": shares})
    figure.numbers = {"figure": "load", "title": f"Share of a layer's tokens by expert ({name})", "unit": "share",
                      "experts": table.experts, "first_step": table.steps[0], "last_step": table.steps[-1], "layers": layers}


def _thin(rows):
    """At most COLUMNS rows: sums of equally many neighbours."""
    each = -(-len(rows) // COLUMNS)
    return [[sum(column) for column in zip(*rows[i:i + each])] for i in range(0, len(rows), each)]


def _export(path):
    program = os.path.join(HOME, "build", "release", "ballast-trace")
    program = program if os.access(program, os.X_OK) else shutil.which("ballast-trace")
    if not program:
        raise LogError(path, 0, "cannot be read without ballast-trace (make builds it)")
    done = subprocess.run([program, "export", path, "--to", "csv"], capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise LogError(path, 0, f"ballast-trace export failed: {words or f'exit {done.returncode}'}")
    return parse_loads(done.stdout, path)
