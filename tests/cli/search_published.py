#!/usr/bin/env python3
"""Layouts that NVIDIA's DGX Cloud benchmarking recipes publish (github.com/NVIDIA/dgxc-benchmarking, tag and file in the
table) against ballast-plan search: the arithmetic of every row, and where its layout stands among the predicted ones."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support.tools import ROOT, Check, folder, run  # noqa: E402

check = Check()
MODELS = {"grok1-314b": ("grok-1", {"vocabulary": 128256}), "llama4-maverick-400b": ("llama-4-maverick", {}),
          "deepseek-v3-671b": ("deepseek-v3", {}), "deepseek-v3-671b-torchtitan": ("deepseek-v3", {"multi_token": 0}),
          "qwen3 Qwen3 30B": ("qwen3-30b-a3b", {}),
          "nemotron3 Nemotron 3 30B": ("nemotron-3-nano-30b-a3b", {}),
          "nemotron3 Nemotron 3 120B": ("nemotron-3-super-120b-a12b", {})}
CLUSTERS = {"H100": "h100-hgx", "B200": "b200-hgx", "B300": "b300-hgx", "GB200": "gb200-nvl72", "GB300": "gb300-nvl72"}
LEAST_GOOD = {"choices": 0.7, "nodes": 0.8}


def rows():
    with open(ROOT / "tests/plan_support/published_layouts.tsv", encoding="ascii") as file:
        names = file.readline().rstrip("\n").split("\t")
        for line in file:
            row = dict(zip(names, line.rstrip("\n").split("\t")))
            for key in ("gpus", "seq", "layers", "tp", "pp", "cp", "ep", "etp", "vp", "mbs", "gbs"):
                row[key] = int(row[key])
            yield row


def arithmetic(row):
    name = f"{row['model']} {row['chip']} x{row['gpus']} {row['dtype']} ({row['tag']})"
    check(row["gpus"] % (row["tp"] * row["pp"] * row["cp"]) == 0, f"{name}: the attention grid does not fold")
    check(row["gpus"] % (row["etp"] * row["ep"] * row["pp"]) == 0, f"{name}: the expert grid does not fold")
    dp = row["gpus"] // (row["tp"] * row["pp"] * row["cp"])
    check(row["gbs"] % (dp * row["mbs"]) == 0, f"{name}: batch {row['gbs']} on {dp} replicas of {row['mbs']}")


def write_model(row, tmp):
    base, changes = MODELS[row["model"]]
    model = json.load(open(ROOT / f"costmodel/models/{base}.json", encoding="ascii"))
    model.update(changes, layers=row["layers"], sequence=row["seq"])
    path = f"{tmp}/{base}-{row['layers']}-{row['seq']}-{len(changes)}-{model.get('multi_token', 0)}.json"
    json.dump(model, open(path, "w", encoding="ascii"))
    return path


def write_cluster(row, tmp):
    """Eight-bit formats: the peak is that of FP8; what travels and what is kept stays in two bytes."""
    cluster = json.load(open(ROOT / f"costmodel/clusters/{CLUSTERS[row['chip']]}.json", encoding="ascii"))
    if row["dtype"].lower() in ("fp8", "nvfp4"):
        cluster["device"]["tflops"] *= 2
    path = f"{tmp}/{row['chip']}-{cluster['device']['tflops']:.0f}.json"
    json.dump(cluster, open(path, "w", encoding="ascii"))
    return path


seen = {}


def search(*arguments):
    if arguments not in seen:
        code, out, err = run("ballast-plan", "search", "--json", *arguments)
        seen[arguments] = json.loads(out) if code == 0 else err.strip()
    return seen[arguments]


def standing(row, dispatch, tmp):
    """Predicted time of the published layout over the best's, its rank among the top five or None, the best layout."""
    common = ["--dispatch", dispatch, "--model", write_model(row, tmp), "--cluster", write_cluster(row, tmp), "--ranks", row["gpus"],
              "--batch", row["gbs"], "--max-vp", 16]
    if row["chip"].startswith("GB"):
        common += ["--ranks-per-node", 64 if row["gpus"] >= 64 else row["gpus"]]
    free = search(*common, "--top", 5)
    published = search(*common, "--tp", row["tp"], "--pp", row["pp"], "--cp", row["cp"], "--ep", row["ep"], "--etp",
                       row["etp"], "--vp", row["vp"], "--micro-batch", row["mbs"])
    if isinstance(free, str) or isinstance(published, str):
        return None, None, published if isinstance(published, str) else free
    keys = ("tp", "pp", "cp", "ep", "etp", "vp")
    place = next((i + 1 for i, e in enumerate(free["top"]) if all(e[k] == row[k] for k in keys) and
                  e["micro_batch"] == row["mbs"]), None)
    best = free["top"][0]
    return published["top"][0]["step_us"] / best["step_us"], place, best


def judge(dispatch, tmp):
    good = judged = 0
    for row in rows():
        ratio, place, best = standing(row, dispatch, tmp)
        judged += 1
        near = ratio is not None and (place is not None or ratio <= 1.3)
        good += near
        name = f"{row['model']:28} {row['chip']:5} {row['gpus']:5} {row['dtype']:5} L{row['layers']}"
        layout = " ".join(f"{k}{row[k]}" for k in ("tp", "cp", "pp", "vp", "ep", "etp", "mbs"))
        if ratio is None:
            print(f"{'far ':5}{name} {layout}: {best[:150]}")
        else:
            other = " ".join(f"{k}{best[k]}" for k in ("tp", "cp", "pp", "vp", "ep", "etp", "micro_batch"))
            print(f"{'near' if near else 'far':5}{name} {layout}: {ratio:.2f} x of {other}, place {place}")
    print(f"--dispatch {dispatch}: {good} of {judged} published layouts in the predicted top 5 or within 1.3 x of the best")
    check(good >= LEAST_GOOD[dispatch] * judged, f"{good} of {judged} are near, expected {LEAST_GOOD[dispatch]:.0%}")


def main():
    for row in rows():
        arithmetic(row)
    with folder() as tmp:
        for dispatch in LEAST_GOOD:
            judge(dispatch, tmp)
    return check.end()


sys.exit(main())
