"""Profiler files of one rank: a JSON record a line, iteration -1 (set-up) and then 1, 2, 3, ...

    {"type":"time", "iteration": 1, "rank": 0, "tp_rank": 0, "pp_rank": 0, "dp_rank": 0,
     "perf": {"MoE_L0_bwd":{"total": 292.83, "avg": 9.15, "max": 8.76, "min": 10.70, "cnt": 32}, ...}}

Times in ms. The writer has max and min the wrong way round; only totals are used.
"""

import re
from dataclasses import dataclass, field

from plotting.errors import LogError
from plotting.formats.common import check_keys, integer, json_object, number, read_bytes, split_lines

_MOE = re.compile(r"MoE_L(\d+)_(fwd|bwd)\Z")
_HEAD = ("type", "iteration", "rank", "tp_rank", "pp_rank", "dp_rank", "perf")


@dataclass
class Profile:
    """total_ms[(layer within the stage, "fwd" or "bwd")][iteration - 1], summed over the micro-batches."""

    path: str
    rank: int = -1
    stage: int = -1
    iterations: int = 0
    total_ms: dict = field(default_factory=dict)
    cut: bool = False

    def layers(self):
        return 1 + max(layer for layer, _ in self.total_ms) if self.total_ms else 0

    def seconds(self, layer, directions):
        """Sum over all iterations of the named directions, seconds."""
        return sum(sum(self.total_ms[layer, d]) for d in directions) / 1000.0


def read_profile(path):
    """One rank's profiler file. A record cut off at the end of the file is left out and noted in `cut`."""
    lines, cut = split_lines(read_bytes(path))
    profile = Profile(str(path), cut=cut)
    for at, line in enumerate(lines, start=1):
        if cut and at == len(lines):
            break
        if line.strip():
            _take(profile, json_object(line, path, at), at)
    if not profile.iterations:
        raise LogError(path, 0, "holds no record of an iteration")
    if not profile.total_ms:
        raise LogError(path, 0, "holds no MoE layer (MoE_L0_bwd and so on)")
    for layer in range(profile.layers()):
        for direction in ("fwd", "bwd"):
            if (layer, direction) not in profile.total_ms:
                raise LogError(path, 0, f"MoE_L{layer}_{direction} is missing")
    return profile


def _take(profile, record, at):
    path = profile.path
    check_keys(record, path, at, "record", _HEAD)
    if record["type"] != "time":
        raise LogError(path, at, "a record of type \"time\" was expected")
    rank = integer(record["rank"], path, at, "rank")
    stage = integer(record["pp_rank"], path, at, "pp_rank")
    if profile.rank not in (-1, rank) or profile.stage not in (-1, stage):
        raise LogError(path, at, f"records of rank {profile.rank} and of rank {rank} in one file")
    profile.rank, profile.stage = rank, stage
    if not isinstance(record["perf"], dict):
        raise LogError(path, at, "perf: an object was expected")
    iteration = integer(record["iteration"], path, at, "iteration", low=-1)
    if iteration == -1 and not profile.iterations:
        return
    if iteration != profile.iterations + 1:
        raise LogError(path, at, f"iteration {profile.iterations + 1} was expected, found {iteration}")
    _take_times(profile, record["perf"], at)
    profile.iterations = iteration


def _take_times(profile, perf, at):
    taken = set()
    for name, entry in perf.items():
        found = _MOE.match(name)
        if not found:
            continue
        key = (integer(found.group(1), profile.path, at, "layer", high=4095), found.group(2))
        if not isinstance(entry, dict):
            raise LogError(profile.path, at, f"{name}: an object was expected")
        check_keys(entry, profile.path, at, name, ("total", "avg", "max", "min", "cnt"))
        times = profile.total_ms.setdefault(key, [])
        if len(times) != profile.iterations:
            raise LogError(profile.path, at, f"{name} was missing in earlier iterations")
        times.append(number(entry["total"], profile.path, at, f"{name}.total", low=0, high=1e12))
        taken.add(key)
    for layer, direction in profile.total_ms:
        if (layer, direction) not in taken:
            raise LogError(profile.path, at, f"MoE_L{layer}_{direction} is missing")
