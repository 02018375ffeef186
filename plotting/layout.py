"""Which kind of log folder this is, and where in the SmartMoE artifact's folder each run of a figure stands."""

import fnmatch
import os
import re
from dataclasses import dataclass

ARTIFACT_FIGURES = ("fig8", "fig9", "fig10", "fig11", "fig12", "fig13")
PAPER_ITERATIONS = 200  # the artifact's scripts take a log with another number of iteration lines for a failed run
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Group:
    """A group of bars: the cluster's folder (or ""), its GPUs, the gate and its name on the axis."""

    cluster: str
    gpus: int
    gate: str  # "gshardC" or "naive" (no capacity: +inf)

    def axis(self):
        return f"{self.gpus}/{'+inf' if self.gate == 'naive' else self.gate.removeprefix('gshard')}"

    def label(self):
        return f"{self.cluster} {self.axis()}".strip()


FIG8_GROUPS = [Group("inky", gpus, gate) for gpus in (16, 32) for gate in ("gshard1.2", "gshard2.4", "gshard4.8", "naive")]
FIG8_GROUPS += [Group("pinky", gpus, gate) for gpus in (32, 64) for gate in ("gshard1.2", "naive")]
FIG9_GROUPS = [Group("", gpus, gate) for gpus in (16, 32) for gate in ("gshard4.8", "naive")]
FIG10_GROUPS = [Group("", gpus, gate) for gpus in (16, 32) for gate in ("gshard1.2", "naive")]
FIG11_PANELS = [(1, 4), (1, 8), (2, 8)]  # nodes, micro-batch
FIG13_FREQUENCIES = (10, 100)

_LAYOUT = re.compile(r"_p(\d+)_d(\d+)_")
_LAYERS = re.compile(r"-L(\d+)-")


def kind(logdir):
    """"artifact", "own" or "" for a folder that is neither. When it is both, the artifact's."""
    if any(os.path.isdir(os.path.join(logdir, name)) for name in ARTIFACT_FIGURES):
        return "artifact"
    if any(name.endswith(".jsonl") for name in _listing(logdir)):
        return "own"
    return ""


def _listing(folder):
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def matches(logdir, folder, pattern, directories=False):
    """Paths in logdir/folder whose name matches the shell pattern; files, or directories."""
    base = os.path.join(logdir, folder)
    test = os.path.isdir if directories else os.path.isfile
    return [path for name in _listing(base) if fnmatch.fnmatchcase(name, pattern) and test(path := os.path.join(base, name))]


def run_pattern(system, gate):
    """The part of a log's name that tells the gate; DeepSpeed writes the capacity in its own way."""
    if system != "deepspeed":
        return f"*{gate}*"
    return "*drop-false*" if gate == "naive" else f"*cap-{gate.removeprefix('gshard')}-drop-true*"


def stages(name):
    """(pipeline stages, ranks a stage, layers or 0) as a run's name says, or None. Tensor parallelism is 1 in it."""
    found, layers = _LAYOUT.search(name), _LAYERS.search(name)
    if not found or len(found.group(1)) > 4 or len(found.group(2)) > 6:
        return None
    depth, width = int(found.group(1)), int(found.group(2))
    if not depth or not width:
        return None
    return depth, width, int(layers.group(1)) if layers and len(layers.group(1)) < 5 else 0
