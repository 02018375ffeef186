"""What `ballast-plan simulate --json` says: a predicted time for each recorded step, and with --log the measured one.

    {"steps": 300, "step_us_median": 264439.1, ..., "iterations": [{"iteration": 1, "step_us": .., "measured_us": ..}, ..]}
"""

from dataclasses import dataclass, field

from plotting.errors import LogError
from plotting.formats.common import check_keys, integer, json_object, number, read_bytes

LEAST_STEPS = 4


@dataclass
class Simulated:
    """measured_us is empty where no run was compared."""

    path: str
    median_us: float
    predicted_us: list = field(default_factory=list)
    measured_us: list = field(default_factory=list)


def read_simulated(path):
    """One prediction. Either every step has a measured time or none has."""
    record = json_object(read_bytes(path).decode("utf-8", errors="replace"), path, 0)
    check_keys(record, path, 0, "prediction", ("steps", "step_us_median", "iterations"), None)
    rows = record["iterations"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(path, 0, "iterations: an array of objects was expected")
    steps = integer(record["steps"], path, 0, "steps", low=1)
    if len(rows) != steps:
        raise LogError(path, 0, f"iterations: {steps} steps were expected, found {len(rows)}")
    result = Simulated(str(path), number(record["step_us_median"], path, 0, "step_us_median", low=1e-9, high=1e15))
    for i, row in enumerate(rows):
        check_keys(row, path, 0, f"iterations[{i}]", ("iteration", "step_us"), ("measured_us",))
        result.predicted_us.append(number(row["step_us"], path, 0, f"iterations[{i}].step_us", low=1e-9, high=1e15))
        if "measured_us" in row:
            result.measured_us.append(number(row["measured_us"], path, 0, f"iterations[{i}].measured_us", low=1e-9, high=1e15))
    if result.measured_us and (len(result.measured_us) != steps or steps < LEAST_STEPS):
        raise LogError(path, 0, f"{len(result.measured_us)} measured times for {steps} steps; at least {LEAST_STEPS} steps "
                       "and a time for each were expected")
    return result
