"""What the tests of ballast-plan share: running programs, made-up traces, reading counts back from CSV."""
import json

import numpy as np

from support.programs import BUILD, ROOT, Check, folder, must, run  # noqa: F401

DATA = ROOT.parent / "shared/data"


def replay(*arguments, dump=None):
    """The JSON result, and the dump's objects where a file for it is given."""
    extra = ["--dump", dump] if dump else []
    result = json.loads(must("ballast-plan", "replay", *arguments, *extra, "--json"))
    return (result, [json.loads(line) for line in open(dump, encoding="utf-8")]) if dump else result


def write_trace(path, counts, first=1, stride=10):
    """counts[step][rank][layer][micro_batch][expert] through the text format that the importer reads."""
    with folder() as text:
        for s in range(counts.shape[0]):
            for r in range(counts.shape[1]):
                with open(f"{text}/table_iter{first + s * stride}_rank{r}.log", "w", encoding="ascii") as file:
                    for layer in range(counts.shape[2]):
                        rows = [[float(c) for c in row] for row in counts[s, r, layer]]
                        file.write(f"{layer}:{json.dumps(rows)}\n")
        must("ballast-trace", "import", "--from", "smartmoe", text, "-o", path)


def made_up(seed, steps=30, ranks=4, layers=3, micro_batches=2, experts=16, tokens=600, skew=1.2, drift=0.25):
    """Popularity that drifts and sometimes jumps; every row sums to `tokens`."""
    rng = np.random.default_rng(seed)
    out = np.zeros((steps, ranks, layers, micro_batches, experts), np.int64)
    logits = rng.normal(0, skew, (layers, experts))
    for s in range(steps):
        logits += rng.normal(0, drift, logits.shape)
        if rng.random() < 0.15:
            logits[rng.integers(layers)] = rng.normal(0, skew, experts)
        for layer in range(layers):
            p = np.exp(logits[layer])
            for r in range(ranks):
                for m in range(micro_batches):
                    out[s, r, layer, m] = rng.multinomial(tokens, p / p.sum())
    return out


def read_csv(path):
    """step numbers, counts[step][layer][rank][micro_batch][expert], from step,layer,rank,micro_batch,e0,..."""
    with open(path, encoding="ascii") as file:
        if not file.readline().startswith("step,layer,rank,micro_batch,e0"):
            raise ValueError("the CSV has another heading")
        table = np.fromstring(file.read().replace("\n", ","), np.int64, sep=",")
    with open(path, encoding="ascii") as file:
        columns = file.readline().count(",") + 1
    table = table.reshape(-1, columns)
    steps = np.unique(table[:, 0])
    shape = [len(steps)] + [int(table[:, i].max()) + 1 for i in (1, 2, 3)] + [columns - 4]
    counts = np.full(shape, -1, np.int64)
    counts[np.searchsorted(steps, table[:, 0]), table[:, 1], table[:, 2], table[:, 3]] = table[:, 4:]
    if (counts < 0).any():
        raise ValueError("the CSV lacks rows")
    return steps, counts
