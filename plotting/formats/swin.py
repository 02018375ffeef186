"""Training logs of Swin-MoE (FastMoE, SmartMoE and Tutel variants); colours of the terminal stand in the lines.

    ... (main_moe.py 268): INFO Train: [0/90][15/54685]<tab>eta .. time 0.8862 (0.9133) .. batch_time 14.6133
    ... (main_moe.py 282): INFO EPOCH 0 training takes 0:31:08
"""

import hashlib
import re
from dataclasses import dataclass, field

from plotting.errors import LogError
from plotting.formats.common import integer, number, read_bytes, shorten, split_lines

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_EPOCH = re.compile(r": INFO EPOCH (\d+) training takes (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)\Z")
_TRAIN = re.compile(r": INFO Train: \[(\d+)/(\d+)\]\[(\d+)/(\d+)\]\t(.*)\Z")
_BATCH = re.compile(r"batch_time (\S+)\Z")


@dataclass
class SwinLog:
    """Seconds of each finished epoch; seconds of each printed interval (one optimizer step) and where it stood."""

    path: str
    epochs_s: list = field(default_factory=list)
    epochs_text: list = field(default_factory=list)
    intervals_s: list = field(default_factory=list)
    steps: list = field(default_factory=list)  # micro-steps done at each interval
    cut: bool = False
    digest: str = ""

    def status(self):
        return "complete" if self.epochs_s else "truncated"


def read_swin(path):
    """A Swin-MoE log."""
    data = read_bytes(path)
    lines, cut = split_lines(data)
    log = SwinLog(str(path), cut=cut, digest=hashlib.sha256(data).hexdigest())
    for at, raw in enumerate(lines, start=1):
        if cut and at == len(lines):
            break
        if "training takes" in raw:
            _take_epoch(log, _COLOUR.sub("", raw), at)
        elif ": INFO Train: [" in _COLOUR.sub("", raw):
            _take_interval(log, _COLOUR.sub("", raw), at)
    return log


def _take_epoch(log, line, at):
    found = _EPOCH.search(line)
    if not found:
        raise LogError(log.path, at, f"'EPOCH n training takes h:mm:ss' was expected, found {shorten(line[-60:])}")
    epoch = integer(found.group(1), log.path, at, "epoch")
    if epoch != len(log.epochs_s):
        raise LogError(log.path, at, f"epoch {len(log.epochs_s)} was expected, found {epoch}")
    days = integer(found.group(2) or "0", log.path, at, "days", high=10**4)
    hours = integer(found.group(3), log.path, at, "hours", high=10**6)
    minutes, seconds = int(found.group(4)), int(found.group(5))
    if minutes > 59 or seconds > 59:
        raise LogError(log.path, at, f"{found.group(4)}:{found.group(5)} are no minutes and seconds")
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise LogError(log.path, at, "an epoch that takes no time")
    log.epochs_s.append(total)
    log.epochs_text.append(found.group(0).rpartition(" takes ")[2])


def _take_interval(log, line, at):
    found = _TRAIN.search(line)
    batch = found and _BATCH.search(found.group(5))
    if not batch:
        raise LogError(log.path, at, f"'Train: [e/E][i/I] ... batch_time s' was expected, found {shorten(line[-60:])}")
    step = integer(found.group(3), log.path, at, "step")
    if log.steps and int(found.group(1)) == 0 and step <= log.steps[-1]:
        raise LogError(log.path, at, f"step {step} follows step {log.steps[-1]}")
    log.steps.append(step)
    log.intervals_s.append(number(batch.group(1), log.path, at, "batch_time", low=1e-9, high=1e9))
