#!/usr/bin/env python3
"""Published layouts against ballast-plan search: the arithmetic of every row, and where its layout stands among the
predicted ones, with what its release's stack can do and with the search's defaults.
time limit: 900 s"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from plan_support import published  # noqa: E402
from plan_support.tools import Check, folder, run  # noqa: E402

check = Check()
LEAST_GOOD = {"what the stack of its release runs": 0.9, "the search's defaults": 0.9}


def arithmetic(row):
    name = published.name_of(row)
    check(row["gpus"] % (row["tp"] * row["pp"] * row["cp"]) == 0, f"{name}: the attention grid does not fold")
    check(row["gpus"] % (row["etp"] * row["ep"] * row["pp"]) == 0, f"{name}: the expert grid does not fold")
    dp = row["gpus"] // (row["tp"] * row["pp"] * row["cp"])
    check(row["gbs"] % (dp * row["published_mbs"]) == 0, f"{name}: batch {row['gbs']} on {dp} of {row['published_mbs']}")


seen = {}


def search(*arguments):
    if arguments not in seen:
        code, out, err = run("ballast-plan", "search", "--json", "--simulate", 0, *arguments)  # closed forms are judged
        seen[arguments] = json.loads(out) if code == 0 else err.strip()
    return seen[arguments]


def standing(row, options, tmp):
    """Predicted time of the published layout over the best's, its rank among the top five or None, the best layout."""
    common = ["--model", published.write_model(row, tmp), "--cluster", published.cluster_path(row), "--ranks",
              row["gpus"], "--batch", row["gbs"], "--max-vp", 16]
    for key, value in options.items():
        common += [f"--{key}", value]
    if published.type_of(row):
        common += ["--type", published.type_of(row)]
    if published.ranks_per_node(row):
        common += ["--ranks-per-node", published.ranks_per_node(row)]
    free = search(*common, "--top", 5)
    grid = [part for key in published.GRID for part in (f"--{key}", row[key])]
    fixed = search(*common, *grid, "--micro-batch", row["mbs"])
    if isinstance(free, str) or isinstance(fixed, str):
        return None, None, fixed if isinstance(fixed, str) else free
    place = next((i + 1 for i, e in enumerate(free["top"]) if all(e[k] == row[k] for k in published.GRID) and
                  e["micro_batch"] == row["mbs"]), None)
    best = free["top"][0]
    return fixed["top"][0]["step_us"] / best["step_us"], place, best


def judge(what, tmp):
    good = judged = 0
    for row in published.rows():
        options = published.stack(row) if what.startswith("what") else {}
        ratio, place, best = standing(row, options, tmp)
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
    print(f"with {what}: {good} of {judged} published layouts in the predicted top 5 or within 1.3 x of the best")
    check(good >= LEAST_GOOD[what] * judged, f"{good} of {judged} are near, expected {LEAST_GOOD[what]:.0%}")


def main():
    for row in published.rows():
        arithmetic(row)
    with folder() as tmp:
        for what in list(LEAST_GOOD)[:1 if os.environ.get("BL_TEST_QUICK") else None]:
            judge(what, tmp)
    return check.end()


sys.exit(main())
