"""What the tests of ballast-train share: runs on a small text, run logs, small model files."""
import json
import os
import random

from support.programs import BUILD, ROOT, Check, folder, must, run  # noqa: F401

TEXT = ROOT.parent / "shared/data/wikitext2/train.txt"
QUICK = os.environ.get("BL_TEST_QUICK") == "1"


def read_log(path):
    """Header and steps of a run log."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return lines[0], lines[1:]


def losses(path):
    """The loss column as it stands in the file: equal strings are equal numbers."""
    with open(path, encoding="utf-8") as file:
        return [line.split('"loss":')[1].split(",")[0] for line in file if '"loss":' in line]


def train(log, *arguments, env=None):
    """Trains and returns the loss column; `log` is the run log's path."""
    must("ballast-train", "--log", log, *arguments, env=env)
    return losses(log)


def write_text(path, size=60000, seed=1):
    """English-like words that a model can learn."""
    rng = random.Random(seed)
    words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randint(2, 7))) for _ in range(300)]
    weights = [1 / (i + 1) for i in range(len(words))]
    out = []
    while sum(map(len, out[-1:])) or not out:
        out.append(" ".join(rng.choices(words, weights, k=12)) + ".\n")
        if len(out) * 60 > size:
            break
    with open(path, "w", encoding="ascii") as file:
        file.write("".join(out))
    return path


def text_file(tmp):
    """Real text where there is any, else made-up words."""
    return TEXT if TEXT.exists() else write_text(f"{tmp}/words.txt")


def write_model(path, **changes):
    """A tiny model; a dotted name changes a nested key ("moe.experts")."""
    model = {"version": 1, "name": "tiny", "layers": 2, "hidden": 32, "vocabulary": 256, "sequence": 32,
             "attention": {"heads": 2, "head_width": 16}, "ffn": {"width": 64},
             "moe": {"experts": 8, "width": 48, "top_k": 2}}
    for name, value in changes.items():
        *parents, key = name.split("__")
        place = model
        for parent in parents:
            place = place[parent]
        place[key] = value
    with open(path, "w", encoding="ascii") as file:
        json.dump(model, file)
    return path
