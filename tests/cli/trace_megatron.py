"""ballast-trace import --from megatron: the router trace of Megatron-Core, made up here, token by token, and counted again."""
import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.programs import Check  # noqa: E402

PROGRAM = os.path.join(os.environ.get("BL_BUILD", ROOT / "build/release"), "ballast-trace")
EXPERTS, TOP_K, TOKENS = 12, 3, 40

check = Check()


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def record(rng, step, layer, rank, block="decoder", **more):
    tokens = TOKENS + rng.randrange(3)
    return {"step": step, "stage": "pre_dispatch", "block": block, "layer": layer, "rank": rank, "num_tokens": tokens, "topk": TOP_K,
            "top_indices": [sorted(rng.sample(range(EXPERTS), TOP_K)) for _ in range(tokens)], **more}


def make(rng, steps=(3, 4, 7), layers=(2, 5), ranks=(0, 1, 4), micro_batches=2):
    """Lines of each rank: a step's micro-batches one after the other, with multi-token prediction in between."""
    lines = {rank: [] for rank in ranks}
    for rank in ranks:
        for step in steps:
            for _ in range(micro_batches):
                lines[rank] += [record(rng, step, layer, rank, hs_offset=0, hs_bytes=8, hs_shape=[1, 4]) for layer in layers]
                lines[rank].append(record(rng, step, 0, rank, "mtp", mtp_idx=0))
    return lines


def write(folder, lines):
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for rank, records in lines.items():
        (folder / f"router_trace_rank{rank}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "hidden_states_rank0.bin").write_bytes(b"\0" * 16)


def counted(lines):
    """{(step, layer index, rank index, micro-batch): counts}."""
    found = {}
    layers = sorted({r["layer"] for r in next(iter(lines.values())) if r["block"] == "decoder"})
    for index, rank in enumerate(sorted(lines)):
        seen = {}
        for r in lines[rank]:
            if r["block"] != "decoder":
                continue
            key = (r["step"], layers.index(r["layer"]))
            micro_batch = seen[key] = seen.get(key, -1) + 1
            counts = [0] * EXPERTS
            for token in r["top_indices"]:
                for e in token:
                    counts[e] += 1
            found[key[0], key[1], index, micro_batch] = counts
    return found


def main():
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as work:
        folder, target = Path(work) / "trace", Path(work) / "t.blt"
        command = ("import", "--from", "megatron", folder, "--experts", EXPERTS, "-o", target)

        def refused(code, part, lines=None, arguments=command):
            if lines is not None:
                write(folder, lines)
            result = run(*arguments)
            check(result.returncode == code and part in result.stderr and result.stderr.count("\n") == 1 and not target.exists(),
                  f"expected {code} and \"{part}\", found {result.returncode}: {result.stderr!r}")

        lines = make(rng)
        write(folder, lines)
        result = run(*command)
        check(result.returncode == 0 and "3 steps x 2 layers x 3 ranks x 2 micro-batches x 12 experts" in result.stderr and
              "gaps (0 to 4)" in result.stderr and "layers 2 to 5" in result.stderr and "6 lines a rank" in result.stderr, result.stderr)
        rows = list(csv.reader(io.StringIO(run("export", target, "--to", "csv").stdout)))[1:]
        got = {tuple(map(int, row[:4])): list(map(int, row[4:])) for row in rows}
        check(got == counted(lines), "counts")
        info = json.loads(run("info", target, "--json").stdout)
        check(info["live"] and (info["first_iteration"], info["last_iteration"]) == (3, 7), f"info: {info}")
        target.unlink()

        staged = make(rng, layers=(1, 2), ranks=(0, 2))  # the others have the layers in between and behind
        staged.update(make(rng, layers=(0, 3, 4), ranks=(1, 3)))
        write(folder, staged)
        result = run(*command)
        check(result.returncode == 0 and "3 steps x 5 layers x 2 ranks x 2 micro-batches" in result.stderr and
              "4 ranks in 2 pipeline stages" in result.stderr, result.stderr)
        rows = list(csv.reader(io.StringIO(run("export", target, "--to", "csv").stdout)))[1:]
        got = {tuple(map(int, row[:4])): list(map(int, row[4:])) for row in rows}
        one, other = (counted({rank: staged[rank] for rank in ranks}) for ranks in ((0, 2), (1, 3)))
        wanted = {(step, (1, 2)[layer], rank, m): c for (step, layer, rank, m), c in one.items()}
        wanted.update({(step, (0, 3, 4)[layer], rank, m): c for (step, layer, rank, m), c in other.items()})
        check(got == wanted, "counts of pipeline stages")
        target.unlink()

        def damaged(change):
            again = {rank: [dict(r) for r in records] for rank, records in lines.items()}
            change(again)
            return again

        def set_in(file, line, **keys):
            return damaged(lambda x: x[file][line].update(keys))

        def without(rank, line):
            return damaged(lambda x: x[rank].pop(line))

        indices = lines[1][3]["top_indices"]
        refused(1, "rank1.jsonl:4: top_indices[0][1]", set_in(1, 3, top_indices=[[0, EXPERTS, 1]] + indices[1:]))
        refused(1, "rank1.jsonl:4: top_indices[0]", set_in(1, 3, top_indices=[[0, 1]] + indices[1:]))
        refused(1, "rank1.jsonl:4: top_indices", set_in(1, 3, top_indices=indices[1:]))
        refused(1, "top_indices[0][0]", set_in(0, 0, top_indices=[[1.5, 1, 2]] + lines[0][0]["top_indices"][1:]))
        refused(1, "rank4.jsonl:1: top level: expected rank 4", set_in(4, 0, rank=3))
        refused(1, "expected block decoder or mtp", set_in(0, 0, block="encoder"))
        refused(1, "expected stage pre_dispatch", set_in(0, 0, stage="post"))
        refused(1, "step 3 after step 4", damaged(lambda x: x[0].append(record(rng, 3, 2, 0)) or x[0].insert(12, record(rng, 3, 2, 0))))
        refused(1, "expected all of another rank's or none", set_in(1, 0, layer=3))
        refused(1, "has 1 layers, expected all of another rank's", {**lines, 1: [r for r in lines[1] if (r["step"], r["layer"]) != (3, 5)]})
        refused(1, "layer 2, which the first step", {**staged, 1: [{**r, "layer": 2} if i == len(staged[1]) - 2 else r for i, r in enumerate(staged[1])]})
        refused(1, "layer 3, which the first step of this rank has not", set_in(1, 6, layer=3))
        refused(1, "pipeline stages of 2 and of 1 ranks", damaged(lambda x: [r.update(layer=r["layer"] + 9) for r in x[4]]))
        refused(1, "micro-batches before this line, expected 2", without(1, 0))
        refused(1, "has 3 lines for 2 layers", without(0, 0))
        refused(1, "more than 2 micro-batches", damaged(lambda x: x[1].insert(0, record(rng, 3, 2, 1))))
        refused(1, "rank4.jsonl:19: step 9, which rank 0 has not", damaged(lambda x: x[4].append(record(rng, 9, 2, 4))))
        refused(1, "num_tokens", damaged(lambda x: x[0][0].pop("num_tokens")))
        refused(1, "topk", set_in(0, 0, topk=EXPERTS + 1))
        write(folder, lines)
        with open(folder / "router_trace_rank1.jsonl", "a", encoding="ascii") as file:
            file.write('{"step": 7, "la')
        refused(1, "rank1.jsonl:19:1:")
        write(folder, lines)
        (folder / "router_trace_rank01.jsonl").write_text("")
        refused(1, "expected a name like")
        refused(1, "holds no file", {})
        refused(1, "holds no step", {0: []})
        refused(2, "needs --experts", lines, ("import", "--from", "megatron", folder, "-o", target))
        refused(2, "for --from megatron alone", lines, ("import", "--from", "smartmoe", folder, "--experts", 4, "-o", target))
        refused(1, "cannot open the folder", lines, ("import", "--from", "megatron", folder / "absent", "--experts", 4, "-o", target))
        for _ in range(40):  # damage at random: a sentence or a trace, never a crash
            write(folder, lines)
            path = folder / f"router_trace_rank{rng.choice((0, 1, 4))}.jsonl"
            content = bytearray(path.read_bytes())
            for _ in range(rng.randint(1, 3)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            path.write_bytes(content[:rng.randint(len(content) // 2, len(content))])
            result = run(*command)
            check(result.returncode == 1 and result.stderr.count("\n") == 1 or result.returncode == 0, f"damaged: {result.returncode} {result.stderr}")
            target.unlink(missing_ok=True)
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
