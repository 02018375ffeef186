"""Expert loads over time: a recorded trace as `ballast-trace export --to csv` writes it,
`step,layer,rank,micro_batch,e0,...,eN`, summed over ranks and micro-batches."""

from dataclasses import dataclass, field

from plotting.errors import LogError
from plotting.formats.common import integer, read_bytes, shorten, split_lines

_LEAD = ["step", "layer", "rank", "micro_batch"]


@dataclass
class Loads:
    """loads[layer][i][expert] = tokens at steps[i]."""

    path: str
    experts: int = 0
    steps: list = field(default_factory=list)
    loads: list = field(default_factory=list)


def read_loads(path):
    """From a CSV file. Rows are in the exporter's order: steps ascend, layers within a step from 0."""
    return parse_loads(read_bytes(path), path)


def parse_loads(data, path):
    """From the bytes of a CSV; `path` is what messages call them."""
    lines, cut = split_lines(data)
    if not lines:
        raise LogError(path, 0, "is empty; a line of column names was expected")
    names = lines[0].split(",")
    experts = len(names) - len(_LEAD)
    if names[:4] != _LEAD or experts < 1 or names[4:] != [f"e{i}" for i in range(experts)]:
        raise LogError(path, 1, f"'step,layer,rank,micro_batch,e0,...' was expected, found {shorten(lines[0])}")
    table = Loads(str(path), experts)
    for at, line in enumerate(lines[1:], start=2):
        if cut and at == len(lines):
            break
        _take(table, line.split(","), at)
    if not table.steps:
        raise LogError(path, 0, "holds no row of counts")
    for layer, rows in enumerate(table.loads):
        if len(rows) != len(table.steps):
            raise LogError(path, 0, f"layer {layer} has {len(rows)} steps of {len(table.steps)}")
    return table


def _take(table, cells, at):
    path = table.path
    if len(cells) != len(_LEAD) + table.experts:
        raise LogError(path, at, f"{len(_LEAD) + table.experts} columns were expected, found {len(cells)}")
    step = integer(cells[0], path, at, "step", low=-(1 << 53))
    layer = integer(cells[1], path, at, "layer", high=100000)
    counts = [integer(cell, path, at, f"e{i}", high=1 << 40) for i, cell in enumerate(cells[4:])]
    if not table.steps or step > table.steps[-1]:
        table.steps.append(step)
    elif step < table.steps[-1]:
        raise LogError(path, at, f"step {step} follows step {table.steps[-1]}")
    if layer > len(table.loads) or (layer == len(table.loads) and len(table.steps) > 1):
        raise LogError(path, at, f"layer {layer} was not expected here")
    if layer == len(table.loads):
        table.loads.append([])
    rows = table.loads[layer]
    if len(rows) == len(table.steps):
        rows[-1] = [a + b for a, b in zip(rows[-1], counts)]
    elif len(rows) == len(table.steps) - 1:
        rows.append(counts)
    else:
        raise LogError(path, at, f"layer {layer} is missing at step {table.steps[len(rows)]}")
