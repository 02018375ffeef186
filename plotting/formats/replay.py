"""Files of the one-layer benchmark over a recorded trace: one JSON line {"FastMoE": [ms...], "SmartMoE": [ms...]}
(other systems' arrays may stand beside them), and the list of iterations at which the placement changed, one a line."""

from plotting.errors import LogError
from plotting.formats.common import integer, json_object, number, numbers, read_bytes, split_lines

MIN_SAMPLES = 2


def read_replay(path):
    """(static ms, dynamic ms), one value a recorded iteration, equally long."""
    lines, _ = split_lines(read_bytes(path))
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != 1:
        raise LogError(path, 0, f"one JSON line was expected, found {len(lines)} lines")
    record = json_object(lines[0], path, 1)
    for name in ("FastMoE", "SmartMoE"):
        if name not in record:
            raise LogError(path, 1, f'the key "{name}" is missing')
    curves = {name: numbers(values, path, 1, name, low=0, high=1e12) for name, values in record.items()}
    static, dynamic = curves["FastMoE"], curves["SmartMoE"]
    if len(static) != len(dynamic):
        raise LogError(path, 1, f"{len(static)} static and {len(dynamic)} dynamic times")
    if len(static) < MIN_SAMPLES:
        raise LogError(path, 1, f"at least {MIN_SAMPLES} samples were expected, found {len(static)}")
    for name in ("FastMoE", "SmartMoE"):
        for i, value in enumerate(curves[name]):
            number(value, path, 1, f"{name}[{i}]", low=1e-9)
    return static, dynamic


def read_changes(path):
    """Iterations, ascending."""
    lines, _ = split_lines(read_bytes(path))
    changes = []
    for at, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        value = integer(line.strip(), path, at, "iteration", low=1, high=10**9)
        if changes and value <= changes[-1]:
            raise LogError(path, at, f"iteration {value} follows iteration {changes[-1]}")
        changes.append(value)
    return changes
