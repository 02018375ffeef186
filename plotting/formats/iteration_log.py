"""Training logs of Megatron-LM and of Megatron-DeepSpeed: one line an iteration among much else.

    iteration        2/     200 | consumed samples:  512 | elapsed time per iteration (ms): 1808.9 | ... |

DeepSpeed's line also has `consumed tokens: N |`. A line belongs to the format when it holds "per iter"; then it must
be whole. Everything else in such a log (shell traces, warnings of sixteen processes) is not looked at, except for the
words of an allocator that ran out of memory.
"""

import hashlib
import re
from dataclasses import dataclass, field

from plotting.errors import LogError
from plotting.formats.common import integer, number, read_bytes, shorten, split_lines

MARK = "per iter"
TIME = "elapsed time per iteration (ms)"
_HEAD = re.compile(r"iteration +(\d+)/ *(\d+)\Z")
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory", re.IGNORECASE)
_CRASH = re.compile(r"^Traceback \(most recent call last\)|CUDA error|NCCL error|Segmentation fault")
_MAY_BE_NAN = ("grad norm", "lm loss", "moe loss", "gshard_loss", "params norm", "num zeros")


@dataclass
class IterationLog:
    """Times of the iterations found, in order from 1; `planned` as the lines themselves say (0 without a line)."""

    path: str
    times_ms: list = field(default_factory=list)
    planned: int = 0
    cut: bool = False  # the last line has no end
    out_of_memory: bool = False
    crashed: bool = False
    digest: str = ""  # of the whole file, to recognise one log standing in two places

    def status(self):
        """complete, out of memory, failed, truncated: what the log itself shows."""
        if self.planned and len(self.times_ms) == self.planned:
            return "complete"
        if self.out_of_memory:
            return "out of memory"
        if self.crashed:
            return "failed"
        return "truncated"


def read_megatron(path):
    """A Megatron-LM log."""
    return _read(path, tokens=False)


def read_deepspeed(path):
    """A Megatron-DeepSpeed log."""
    return _read(path, tokens=True)


def _read(path, tokens):
    data = read_bytes(path)
    lines, cut = split_lines(data)
    log = IterationLog(str(path), digest=hashlib.sha256(data).hexdigest())
    for at, line in enumerate(lines, start=1):
        if _OUT_OF_MEMORY.search(line):
            log.out_of_memory = True
        if _CRASH.search(line):
            log.crashed = True
        if MARK not in line:
            continue
        if cut and at == len(lines):
            break
        _take(log, line, at, tokens)
    log.cut = cut
    return log


def _take(log, line, at, tokens):
    iteration, planned, fields = _split(log.path, line, at, tokens)
    expected = len(log.times_ms) + 1
    if iteration != expected:
        raise LogError(log.path, at, f"iteration {expected} was expected, found {iteration}")
    if log.planned and planned != log.planned:
        raise LogError(log.path, at, f"a run of {log.planned} iterations became one of {planned}")
    if iteration > planned:
        raise LogError(log.path, at, f"iteration {iteration} of {planned}")
    log.planned = planned
    log.times_ms.append(number(fields[TIME], log.path, at, TIME, low=1e-6, high=1e12))


def _split(path, line, at, tokens):
    pieces = line.split("|")
    if pieces[-1].strip():
        raise LogError(path, at, f"an iteration line ends in '|', found {shorten(pieces[-1].strip())}")
    head = _HEAD.match(pieces[0].strip())
    if not head:
        raise LogError(path, at, f"'iteration N/M' was expected, found {shorten(pieces[0].strip())}")
    fields = {}
    for piece in pieces[1:-1]:
        name, colon, value = (part.strip() for part in piece.rpartition(":"))
        if not colon or not name:
            raise LogError(path, at, f"'name: value' was expected, found {shorten(piece.strip())}")
        if name in fields:
            raise LogError(path, at, f"{shorten(name)} stands twice")
        if not (name in _MAY_BE_NAN and value in ("nan", "inf", "-inf")):
            number(value, path, at, name)
        fields[name] = value
    for name in (TIME, "consumed samples") + (("consumed tokens",) if tokens else ()):
        if name not in fields:
            raise LogError(path, at, f"'{name}' is missing in the iteration line")
    if not tokens and "consumed tokens" in fields:
        raise LogError(path, at, "'consumed tokens' stands in DeepSpeed's lines, not in Megatron's")
    planned = integer(head.group(2), path, at, "number of iterations", low=1, high=10**9)
    return integer(head.group(1), path, at, "iteration", low=1, high=10**9), planned, fields
