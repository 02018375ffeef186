#!/usr/bin/env python3
"""Figures from Ballast's own run logs, on made-up logs whose numbers are known."""

import json
import os
import statistics
import sys

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), p) for p in ("../..", "..")]
from plotting_support import runs  # noqa: E402
from plotting_support.check import Check, run_tests, runme  # noqa: E402

NAMES = ("fig8", "fig10", "fig11", "fig12", "fig13", "loss", "load")


def load(out, name):
    with open(os.path.join(out, f"{name}.json"), encoding="utf-8") as file:
        return json.load(file)


def every_figure(check, folder):
    """One run a policy: all figures with the numbers that the logs determine."""
    code, stdout, stderr, out = runme(folder, runs.folder(os.path.join(folder, "logs")))
    check(code == 0 and stderr.startswith("missing: fig9: ") and stderr.count("\n") == 1, f"exit {code}: {stderr}")
    for name in NAMES:
        check(f"{name}.pdf" in stdout, f"{name} is named on stdout")
        for suffix in (".pdf", ".png", ".json"):
            check(os.path.getsize(os.path.join(out, name + suffix)) > 100, f"{name}{suffix}")
    group = load(out, "fig8")["groups"][0]
    check(group["label"] == "4 ranks, naive gate", group["label"])
    check(list(group["values"]) == ["static", "smartmoe:10", "eplb:10", "ballast", "uniform"], "policies in order")
    total = {p: sum(runs.step(p, at, 4)["step_us"] for at in range(1, 61)) for p in runs.POLICIES}
    late = {p: statistics.median(runs.step(p, at, 4)["step_us"] for at in range(7, 61)) for p in runs.POLICIES}
    honest = load(out, "fig8_honest")["groups"][0]["values"]
    shares = load(out, "fig10_honest")["groups"][0]["values"]
    for policy in runs.POLICIES:
        check.near(group["values"][policy], total["static"] / total[policy], 1e-9, f"fig8 {policy}")
        check.near(honest[policy], late["static"] / late[policy], 1e-9, f"fig8 by the median {policy}")
        check.near(shares[policy], late["uniform"] / late[policy], 1e-9, f"fig10 {policy}")
    panels = load(out, "fig11")["panels"]
    check([panel["title"] for panel in panels] == ["static", "ballast"], "fig11: a panel a prediction")
    check.near(panels[1]["mape"], 0.1, 1e-9, "fig11: a tenth too low")
    check(panels[1]["mape_calibrated"] < 1e-9, "fig11: which a factor mends")
    layers = load(out, "fig12")
    check(layers["system"] == "ballast" and len(layers["layers"]) == 4, "fig12 shows ballast's four layers")
    check.near(layers["layers"][2], 1.8 / 1.02, 1e-6, "fig12: ratio of mean imbalances")
    curve = load(out, "fig13")["curves"]["smartmoe:10"]
    check(curve["changes"] == [11, 21, 31, 41, 51] and len(curve["step_ms"]) == 60, "fig13: changes and steps")
    check(load(out, "fig13_honest")["curves"]["smartmoe:10"]["experts_moved"] == 5 * 5 * 4, "fig13: homes moved")
    losses = load(out, "loss")["curves"]["eplb:10"]
    check.near(losses["seconds"][-1], total["eplb:10"] / 1e6, 1e-9, "loss: the clock is the sum of steps")
    check(set(load(out, "loss_honest")["differences"]["ballast"]) == {0.0}, "loss: nothing between equal runs")
    shares = load(out, "load")["layers"][1]["share"]
    check(len(shares) == 60 and all(abs(sum(column) - 1) < 1e-9 for column in shares), "load: shares of each step")


def what_is_missing(check, folder):
    """A lone static run, a truncated one, a second of one policy, a broken one, no trace."""
    logs = runs.folder(os.path.join(folder, "logs"))
    os.remove(os.path.join(logs, "load.csv"))
    os.remove(os.path.join(logs, "uniform.jsonl"))
    path = os.path.join(logs, "ballast.jsonl")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) * 2 // 3)
    for name, policy, edit in (("static_again", "static", ("", "")), ("broken", "eplb:5", ('"loss": ', '"loss": x'))):
        with open(os.path.join(logs, f"{name}.jsonl"), "w", encoding="utf-8") as file:
            file.write(runs.run_log(policy, 30).replace(*edit, 1))
    code, _, stderr, out = runme(folder, logs)
    check(code == 0 and "Traceback" not in stderr, f"exit {code}: {stderr}")
    values = load(out, "fig8")["groups"][0]["values"]
    check(values["ballast"] is None and values["eplb:10"] > 1, "an unfinished run has no speed-up")
    for words in ("ballast.jsonl: truncated after", "static_again.jsonl: a second run of static", "broken.jsonl:2: is not JSON",
                  "fig10: a run with uniform routing", "load: no recorded trace"):
        check(words in stderr, f"named: {words} in {stderr}")
    check(not os.path.exists(os.path.join(out, "fig10.pdf")) and not os.path.exists(os.path.join(out, "load.pdf")),
          "what has no logs is not drawn")
    check(len(load(out, "fig13")["curves"]["ballast"]["step_ms"]) < 60, "the steps there are, are drawn")
    for name in os.listdir(logs):
        if name != "static.jsonl":
            os.remove(os.path.join(logs, name))
    code, stdout, _, out = runme(folder, logs)
    check(code == 0 and "fig13.pdf" in stdout and "fig8.pdf" not in stdout, f"a lone run still has curves: {stdout}")


def resumed(check, folder):
    """A resumed run appends; steps that it repeats replace the earlier ones; layouts of runs tell families apart."""
    logs = os.path.join(folder, "logs")
    os.makedirs(logs)
    whole = runs.run_log("static", 40).split("\n")
    tail = [line.replace('"loss": ', '"loss": 1') for line in whole[21:]]
    with open(os.path.join(logs, "a.jsonl"), "w", encoding="utf-8") as file:
        file.write("\n".join(whole[:31] + whole[:1] + tail))
    with open(os.path.join(logs, "b.jsonl"), "w", encoding="utf-8") as file:
        file.write(runs.run_log("ballast", 40, ranks=2))
    code, _, stderr, out = runme(folder, logs)
    check(code == 0, f"exit {code}: {stderr}")
    curves = load(out, "fig13")["curves"]
    check(list(curves) == ["static"] and len(curves["static"]["step_ms"]) == 40, "forty steps, none twice")
    loss = load(out, "loss")["curves"]["static"]["loss"]
    check(loss[19] < 10 < loss[20], "step 21 on is the resumed run's")
    check("fig8: a static run and one of another policy" in stderr, "runs on other ranks are not compared")


def default_folder(check, folder):
    """Without an argument RUNME-a.sh takes the project's own logs/."""
    code, _, stderr, out = runme(folder)
    shipped = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../logs")
    if any(name.endswith(".jsonl") for name in (os.listdir(shipped) if os.path.isdir(shipped) else [])):
        check(code == 0 and os.path.exists(os.path.join(out, "fig13.pdf")), f"exit {code}: {stderr}")
    else:
        check.skip("logs/ holds no run yet")
        check(code == 1, f"exit {code}: {stderr}")


if __name__ == "__main__":
    sys.exit(run_tests(Check(), [every_figure, what_is_missing, resumed, default_folder]))
