"""The recorded trace in ../shared/data: imported, its size is as known, and its CSV equals the text files number for
number; the statistics equal those that numpy computes from the text."""
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.programs import Check  # noqa: E402

PROGRAM = os.path.join(os.environ.get("BL_BUILD", ROOT / "build/release"), "ballast-trace")
ARCHIVE = ROOT.parent / "shared/data/smartmoe_moe_trace_1-2491.tar.xz"

check = Check()


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


def read_text(folder):
    """(iterations, counts[step][layer][rank][micro-batch][expert]) by Python's own JSON reader."""
    names = [re.fullmatch(r"table_iter(\d+)_rank(\d+)\.log", name) for name in os.listdir(folder)]
    files = sorted((int(m[1]), int(m[2]), m[0]) for m in names if m)
    iterations = sorted({f[0] for f in files})
    ranks = sorted({f[1] for f in files})
    counts = None
    for iteration, rank, name in files:
        lines = (folder / name).read_text().splitlines()
        tables = [json.loads(line.split(":", 1)[1]) for line in lines]
        assert [int(line.split(":", 1)[0]) for line in lines] == list(range(len(lines)))
        tables = np.array(tables)
        if counts is None:
            counts = np.zeros((len(iterations), tables.shape[0], len(ranks), *tables.shape[1:]), np.int64)
        counts[iterations.index(iteration), :, ranks.index(rank)] = tables
        assert (counts[iterations.index(iteration), :, ranks.index(rank)] == tables).all()
    return iterations, counts


def check_csv(path, iterations, counts):
    steps, layers, ranks, micro_batches, experts = counts.shape
    with open(path) as f:
        check(f.readline() == "step,layer,rank,micro_batch," + ",".join(f"e{e}" for e in range(experts)) + "\n", "CSV heading")
        different = 0
        for s, iteration in enumerate(iterations):
            rows = counts[s].reshape(-1, experts).tolist()
            for i, row in enumerate(rows):
                place = (iteration, i // (ranks * micro_batches), i // micro_batches % ranks, i % micro_batches)
                different += f.readline() != ",".join(map(str, (*place, *row))) + "\n"
        check(different == 0, f"{different} lines of the CSV differ from the text")
        check(f.read() == "", "nothing behind the last row")


def check_stats(trace, counts):
    loads = counts.sum((2, 3)).astype(float)  # [step][layer][expert]
    shares = loads / loads.sum(-1, keepdims=True)
    experts = loads.shape[-1]
    for ranks, known in ((4, 2.0006), (8, 3.2974), (16, 5.8586)):
        stats = json.loads(run("stats", trace, "--ranks", ranks, "--json", "--lags", "1,10").stdout)
        homes = loads.reshape(*loads.shape[:2], ranks, -1).sum(-1)
        imbalance = homes.max(-1) / homes.mean(-1)
        check(abs(stats["all"]["imbalance"] - imbalance.mean()) < 1e-6, f"imbalance on {ranks} ranks")
        check(abs(stats["all"]["imbalance"] - known) < 5e-5, f"imbalance on {ranks} ranks is {known}")
        check(abs(stats["all"]["worst_imbalance"] - imbalance.max()) < 1e-6, f"worst imbalance on {ranks} ranks")
        layers = [layer["imbalance"] for layer in stats["layers"]]
        check(np.allclose(layers, imbalance.mean(0), rtol=1e-7), f"imbalance of the layers on {ranks} ranks")
    ordered = np.sort(shares, -1)
    gini = ((2 * np.arange(1, experts + 1) - experts - 1) * ordered).sum(-1) / experts
    logs = np.where(shares > 0, np.log(np.maximum(shares, 1e-300)), 0)
    entropy = -(shares * logs).sum(-1) / np.log(experts)
    wanted = {"gini": gini, "entropy": entropy, "top_share": ordered[..., -1], "top4_share": ordered[..., -4:].sum(-1),
              "idle": (loads == 0).mean(-1)}
    for key, value in wanted.items():
        check(np.allclose([layer[key] for layer in stats["layers"]], value.mean(0), rtol=1e-7), key)
        check(abs(stats["all"][key] - value.mean()) < 1e-7, f"{key} over all layers")
    for i, lag in enumerate((1, 10)):
        distance = 0.5 * np.abs(shares[lag:] - shares[:-lag]).sum(-1)
        kept = shares[lag:].argmax(-1) == shares[:-lag].argmax(-1)
        check(np.allclose([layer["drift"][i] for layer in stats["layers"]], distance.mean(0), rtol=1e-7), f"drift over {lag}")
        check(np.allclose([layer["top_kept"][i] for layer in stats["layers"]], kept.mean(0), rtol=1e-7), f"top kept over {lag}")
    first = json.loads(run("stats", trace, "--ranks", 8, "--steps", "1:1", "--json").stdout)["all"]
    check(abs(first["gini"] - 0.114) < 6e-4 and abs(first["entropy"] - 0.994) < 6e-4 and abs(first["top4_share"] - 0.173) < 6e-4,
          "published statistics of iteration 1")


def check_subset(folder, work, counts):
    """Only some ranks and iterations: what is there is read, what is missing is named."""
    part = work / "part"
    part.mkdir()
    for iteration in (11, 101, 21):
        for rank in (3, 12):
            name = f"table_iter{iteration}_rank{rank}.log"
            os.link(folder / name, part / name)
    result = run("import", "--from", "smartmoe", part, "-o", work / "part.blt")
    check(result.returncode == 0 and "gaps" in result.stderr, f"part of the trace: {result.stderr}")
    info = json.loads(run("info", work / "part.blt", "--json").stdout)
    check((info["steps"], info["ranks"], info["iteration_stride"]) == (3, 2, 0), "size of the part")
    run("export", work / "part.blt", "--to", "csv", "-o", work / "part.csv")
    check_csv(work / "part.csv", [11, 21, 101], counts[[1, 2, 10]][:, :, [3, 12]])
    (part / "table_iter21_rank12.log").unlink()
    result = run("import", "--from", "smartmoe", part, "-o", work / "no.blt")
    check(result.returncode == 1 and "table_iter21_rank12.log is missing" in result.stderr, result.stderr)
    check(not list(work.glob("no.blt*")), "nothing is left of a failed import")


def main():
    if not ARCHIVE.exists():
        check.skip(f"no ../shared/data/{ARCHIVE.name}")
        return check.end()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(work)
        folder, trace = work / "moe_trace", work / "public.blt"
        result = run("import", "--from", "smartmoe", folder, "-o", trace)
        check(result.returncode == 0, f"import: {result.stderr}")
        info = json.loads(run("info", trace, "--json").stdout)
        wanted = {"steps": 250, "layers": 24, "ranks": 16, "micro_batches": 4, "experts": 32, "min_row_sum": 4096,
                  "max_row_sum": 4096, "first_iteration": 1, "last_iteration": 2491, "iteration_stride": 10,
                  "live": False, "truncated": False}
        check({key: info[key] for key in wanted} == wanted, f"info: {info}")
        text = run("info", trace).stdout
        check("250 x 24 layers x 16 ranks x 4 micro-batches x 32 experts" in text and "4096 (every row)" in text, text)
        iterations, counts = read_text(folder)
        check(run("export", trace, "--to", "csv", "-o", work / "public.csv").returncode == 0, "export")
        check_csv(work / "public.csv", iterations, counts)
        check_stats(trace, counts)
        check_subset(folder, work, counts)
        check(os.path.getsize(trace) < 8e6, f"{os.path.getsize(trace)} bytes, expected less than 8 MB")
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
