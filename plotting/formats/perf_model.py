"""Files of the performance model: line 1 the estimate that knows nothing of the data (ms), line 2 JSON with
{"real": [measured ms...], "est": [estimated ms...]}."""

from dataclasses import dataclass

from plotting.errors import LogError
from plotting.formats.common import check_keys, json_object, number, numbers, read_bytes, split_lines


@dataclass
class PerfModel:
    path: str
    naive_ms: float
    real_ms: list
    est_ms: list


def read_perf_model(path):
    """One panel. Both arrays have the same length, at least 4, all times positive."""
    lines, _ = split_lines(read_bytes(path))
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != 2:
        raise LogError(path, 0, f"two lines were expected (an estimate, then JSON), found {len(lines)}")
    naive = number(lines[0].strip(), path, 1, "estimate", low=1e-9, high=1e12)
    record = json_object(lines[1], path, 2)
    check_keys(record, path, 2, "record", ("real", "est"))
    real = numbers(record["real"], path, 2, "real", low=1e-9, high=1e12)
    est = numbers(record["est"], path, 2, "est", low=1e-9, high=1e12)
    if len(real) != len(est):
        raise LogError(path, 2, f"{len(real)} measured and {len(est)} estimated times")
    if len(real) < 4:
        raise LogError(path, 2, f"at least 4 points were expected, found {len(real)}")
    return PerfModel(str(path), naive, real, est)
