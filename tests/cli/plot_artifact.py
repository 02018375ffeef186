#!/usr/bin/env python3
"""RUNME-a.sh on logs in the SmartMoE artifact's layout: made-up ones, and the public part where it is at hand."""

import json
import os
import shutil
import sys
import tarfile

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), p) for p in ("../..", "..")]
from plotting import layout  # noqa: E402
from plotting_support import artifact  # noqa: E402
from plotting_support.check import DATA, REFERENCE, Check, run_tests, runme  # noqa: E402

NAMES = ("fig8", "fig9", "fig10", "fig11", "fig12", "fig13")


def load(out, name):
    with open(os.path.join(out, f"{name}.json"), encoding="utf-8") as file:
        return json.load(file)


def values(numbers):
    return {group["label"]: group["values"] for group in numbers["groups"]}


def runs(out, name):
    return {(run["label"], run["system"]): run for run in load(out, f"{name}_honest")["runs"]}


def whole_artifact(check, folder):
    """Every figure, both pages, and values known by construction."""
    code, stdout, stderr, out = runme(folder, artifact.tree(os.path.join(folder, "logs")))
    check(code == 0, f"exit {code}: {stderr}")
    for name in NAMES:
        for suffix in (".pdf", ".png", "_honest.png", ".json", "_honest.json"):
            check(os.path.getsize(os.path.join(out, name + suffix)) > 100, f"{name}{suffix} is there")
        check(f"{name}.pdf" in stdout, f"{name}.pdf is named on stdout")
        check(not any(file.endswith(".part") for file in os.listdir(out)), "nothing half-written stays")
    bars = values(load(out, "fig8"))
    check(list(bars) == [group.label() for group in layout.FIG8_GROUPS], "twelve groups in the paper's order")
    for label, row in bars.items():
        for s, system in enumerate(("fastmoe", "deepspeed", "fastermoe", "smartmoe")):
            expected = (10 + 199 * 4) / (10 + 199 * (4 - 0.5 * s))
            failed = (label, system) == ("pinky 64/+inf", "deepspeed")
            check.near(row[system], None if failed else expected, 1e-9, f"fig8 {label} {system}")
    honest = runs(out, "fig8")
    check(honest["pinky 64/+inf", "deepspeed"]["status"] == "out of memory", "the honest reading says out of memory")
    check.near(honest["inky 16/1.2", "smartmoe"]["speedup_steady"], 4 / 2.5, 1e-9, "median speed-up without start-up")
    check(honest["inky 16/2.4", "smartmoe"]["same_log_as"] == "inky 16/1.2 smartmoe", "one log in two places is named")
    check.near(values(load(out, "fig9"))["32/+inf"]["smartmoe"], 4.0, 1e-9, "fig9")
    check.near(runs(out, "fig9")["32/+inf", "fastmoe"]["speedup_steady"], 2.0, 1e-9, "fig9 by the median step")
    check.near(values(load(out, "fig10"))["16/1.2"]["alpa"], (10 + 796) / (10 + 597), 1e-9, "fig10")
    panel = load(out, "fig11")["panels"][2]
    check(panel["title"] == "16-8", "fig11's third panel")
    check.near(panel["r2_calibrated"], 1.0, 1e-9, "a line calibrates a line")
    check(panel["mape_calibrated"] < 1e-12, "and leaves no error")
    layers = load(out, "fig12")
    check(len(layers["layers"]) == 16 and all(abs(v - 1.2) < 1e-9 for v in layers["layers"]), "fig12: backward")
    check.near(load(out, "fig12_honest")["layers_forward_and_backward"][4], (10 + 3.6) / 13, 1e-9, "fig12: both ways")
    check.near(load(out, "fig12_honest")["end_to_end_by_total"], 1.2, 1e-9, "fig12: end to end")
    curve = load(out, "fig13")["curves"]["freq100"]
    check(len(curve["dynamic_ms"]) == 299 and curve["static_ms"][0] == 170.0, "fig13: the first sample is dropped")
    check(curve["changes"] == [1, 11, 211, 2991], "fig13: changes as in the file")
    check(load(out, "fig8")["missing"] == [next(m for m in load(out, "fig8")["missing"] if "pinky 64/+inf deepspeed" in m)],
          "only the failed run is missing in fig8")
    check(all(load(out, name)["missing"] == [] for name in NAMES[1:]), "nothing else is missing")


def incomplete(check, folder):
    """Folders and files that are not there are named, the rest is drawn."""
    logs = artifact.tree(os.path.join(folder, "logs"))
    shutil.rmtree(os.path.join(logs, "fig8/pinky"))
    shutil.rmtree(os.path.join(logs, "fig9"))
    group = layout.Group("inky", 16, "gshard2.4")
    os.remove(os.path.join(logs, "fig8/inky/16gpus/fastermoe", artifact.name("fastermoe", group)))
    twin = os.path.join(logs, "fig8/inky/16gpus/smartmoe", artifact.name("smartmoe", group))
    shutil.copy(twin, twin.replace("2022-12-23", "2022-12-24"))
    code, _, stderr, out = runme(folder, logs)
    check(code == 0, f"exit {code}: {stderr}")
    check(not os.path.exists(os.path.join(out, "fig9.pdf")), "fig9 has no logs and is not drawn")
    check("fig9: the group 16/4.8" in stderr and "fig8: the group pinky 32/1.2" in stderr, "missing groups are named")
    check("inky 16/2.4 smartmoe: 2 logs match" in stderr, "two candidates are no log")
    numbers = load(out, "fig8")
    check(len(numbers["groups"]) == 8, "the eight groups of one cluster")
    check(values(numbers)["inky 16/2.4"]["fastermoe"] is None, "a missing run has no value")
    check(any("inky 16/2.4 fastermoe" in m for m in numbers["missing"]), "and stands in the JSON")


def cut_and_broken(check, folder):
    """A log cut in the middle, one that ends early, one with a damaged line."""
    logs = artifact.tree(os.path.join(folder, "logs"))
    paths = {s: os.path.join(logs, "fig8/inky/16gpus", s, artifact.name(s, layout.Group("inky", 16, "naive")))
             for s in ("deepspeed", "fastermoe", "smartmoe")}
    with open(paths["smartmoe"], "r+b") as file:
        file.truncate(os.path.getsize(paths["smartmoe"]) // 2)
    artifact.write(paths["deepspeed"], artifact.megatron(artifact.times(2.0)[:77], planned=200, tokens=True))
    with open(paths["fastermoe"], encoding="utf-8") as file:
        lines = file.read().split("\n")
    lines[52] = lines[52].replace("per iteration (ms): ", "per iteration (ms): x")
    artifact.write(paths["fastermoe"], "\n".join(lines))
    code, _, stderr, out = runme(folder, logs)
    check(code == 0, f"exit {code}: {stderr}")
    row = values(load(out, "fig8"))["inky 16/+inf"]
    check(row["fastmoe"] == 1.0 and row["deepspeed"] is row["fastermoe"] is row["smartmoe"] is None, "failed runs are null")
    honest = runs(out, "fig8")
    check(honest["inky 16/+inf", "smartmoe"]["status"] == "truncated", "the honest reading: truncated")
    check(honest["inky 16/+inf", "deepspeed"]["status"] == "truncated", "a run that stops early is truncated, not OOM")
    check("smartmoe: failed run, truncated after" in stderr and "deepspeed: failed run, truncated after 77" in stderr,
          f"both are named: {stderr}")
    check(f"{paths['fastermoe']}:53: " in stderr, "the damaged line is named by file and line")
    check("Traceback" not in stderr, "no traceback")


def extremes(check, folder):
    """Times that no machine takes: pictures still come, and soon."""
    logs = artifact.tree(os.path.join(folder, "logs"))
    group = layout.Group("inky", 16, "naive")
    path = os.path.join(logs, "fig8/inky/16gpus/smartmoe", artifact.name("smartmoe", group))
    artifact.write(path, artifact.megatron([0.1] * 200))
    artifact.write(os.path.join(logs, "fig11/perf_model_1nodes_mbs4.log"), artifact.perf_model(1e-6, [1e-6] * 8, [1e-6] * 8))
    artifact.write(os.path.join(logs, "fig13/freq10"), artifact.replay([1e-6] * 300, [1e11] * 300))
    for stage in range(4):
        run = "GPT-L16-H1536-64MoE_naive4.8_EP+DP_t1_p4_d16_ep8_dp2_dynamicON_x.prof"
        artifact.write(os.path.join(logs, "fig12", run, f"{16 * stage}.profiler"),
                       artifact.profile(16 * stage, stage, [1e-6] * 4, [1e-6] * 4))
    code, _, stderr, out = runme(folder, logs)
    check(code == 0 and "Traceback" not in stderr and "Warning" not in stderr, f"exit {code}: {stderr}")
    check(values(load(out, "fig8"))["inky 16/+inf"]["smartmoe"] > 1e4, "the number stands, however large")


def refusals(check, folder):
    """Folders without logs, usage."""
    os.mkdir(os.path.join(folder, "empty"))
    for argument in ("empty", "nowhere"):
        code, stdout, stderr, out = runme(folder, argument)
        check(code == 1 and out is None and stdout == "", f"{argument}: exit {code}")
        check(len(stderr.strip().split("\n")) == 1 and argument in stderr, f"{argument}: one sentence: {stderr}")
    check(runme(folder, "a", "b")[0] == 2 and runme(folder, "--fast")[0] == 2, "usage is exit 2")
    check(runme(folder, "--help")[0] == 0, "--help is exit 0")
    code, _, stderr, out = runme(folder, "empty", PYTHON="/bin/false")
    check(code == 3 and out is None and "has no matplotlib" in stderr, f"without matplotlib: exit {code}: {stderr}")
    os.makedirs(os.path.join(folder, "hollow", "fig8"))
    code, _, stderr, out = runme(folder, "hollow")
    check(code == 1 and out is None and "no figure can be drawn" in stderr, "a layout without any log is exit 1")


def public_part(check, folder):
    """Every published and derived number that the public part of the artifact's logs determines, within 1e-3."""
    archive, reference = os.path.join(DATA, "smartmoe_logs_part.tar.xz"), os.path.join(REFERENCE, "smartmoe_expected.json")
    for path in (archive, reference):
        if not os.path.isfile(path):
            return check.skip(f"no {os.path.basename(path)} beside the project")
    with tarfile.open(archive) as file:
        file.extractall(folder)
    with open(reference, encoding="utf-8") as file:
        expected = json.load(file)
    code, _, stderr, out = runme(folder, os.path.join(folder, "logs"))
    check(code == 0, f"exit {code}: {stderr}")
    for name in ("fig8", "fig9", "fig10"):
        check_bars(check, out, name, expected[name])
    check(set(values(load(out, "fig8"))) == {f"{g['cluster']} {g['label']}" for g in expected["fig8"]["groups"]},
          "exactly the groups of the part")
    check_panels(check, load(out, "fig11")["panels"], load(out, "fig11_honest")["panels"], expected["fig11"]["panels"])
    layers, honest = load(out, "fig12")["layers"], load(out, "fig12_honest")
    check(len(layers) == 16 and layers[8:] == [None] * 8 and None not in layers[:8], "fig12: two of four profiled ranks")
    check.near(max(layers[:8]), expected["fig12"]["max_speedup"], 1e-3, "fig12: the greatest speed-up")
    check.near(honest["max_forward_and_backward"], expected["fig12"]["fwdbwd_max"], 1e-3, "fig12: forward and backward")
    for name in ("total", "median"):
        check.near(honest[f"end_to_end_by_{name}"], expected["fig12"][f"end_to_end_speedup_by_{name}"], 1e-3, f"fig12 {name}")
    check_curve(check, load(out, "fig13")["curves"], load(out, "fig13_honest")["curves"], expected["fig13"]["curves"])
    for words in ("fig8: the group pinky 64/1.2", "fig9: the group 32/4.8", "fig10: 32/1.2 alpa", "fig11: the panel 16-8",
                  "48.profiler", "fig13/freq100"):
        check(words in stderr, f"named as missing: {words}")
    return None


def check_bars(check, out, name, expected):
    shown, honest = values(load(out, name)), runs(out, name)
    for group in expected["groups"]:
        label = f"{group.get('cluster', '') if name == 'fig8' else ''} {group['label']}".strip()
        for system, truth in group["systems"].items():
            run = honest[label, system]
            speedup = next(value for key, value in truth.items() if key.startswith("speedup"))
            check.near(shown[label][system], speedup, 1e-3, f"{name} {label} {system}")
            check(run["file"] == truth["file"], f"{name} {label} {system}: {run['file']}")
            for key in set(truth) & {"n", "total_s", "first_ms", "median_ms", "mean_ms_skip20", "min_ms", "max_ms_skip1",
                                     "last_ms"}:
                check.near(run[key], truth[key], 1e-3, f"{name} {label} {system} {key}")
            check(run.get("hms") == truth.get("hms"), f"{name} {label} {system}: {run.get('hms')}")
        if "smart_over_faster_median" in group:
            quotient = honest[label, "smartmoe"]["speedup_median"] / honest[label, "fastermoe"]["speedup_median"]
            check.near(quotient, group["smart_over_faster_median"], 1e-3, f"{name} {label}: by medians")


def check_panels(check, panels, honest, expected):
    check([p["title"] for p in panels] == [p["title"] for p in expected], "the panels of the part")
    for panel, more, truth in zip(panels, honest, expected):
        what = f"fig11 {truth['title']}"
        check(panel["estimated_ms"] == truth["est_ms"] and panel["real_ms"] == truth["real_ms"], f"{what}: the points")
        check.near(panel["naive_ms"], truth["naive_est_ms"], 1e-3, f"{what}: naive")
        for key in ("mape", "r2"):
            check.near(panel[key], truth[key], 1e-3, f"{what}: {key}")
        for key in ("pearson", "max_ape", "naive_mape", "est_min", "est_max", "real_min", "real_max"):
            check.near(more[key], truth[key], 1e-3, f"{what}: {key}")
        check(panel["mape_calibrated"] < panel["mape"] / 2, f"{what}: two parameters more than halve the error")


def check_curve(check, curves, honest, expected):
    for name, truth in expected.items():
        check(curves[name]["static_ms"] == truth["static_ms"], f"fig13 {name}: static")
        check(curves[name]["dynamic_ms"] == truth["dynamic_ms"], f"fig13 {name}: dynamic")
        check(curves[name]["changes"] == truth["change_iters"], f"fig13 {name}: changes")
        more = honest[name]
        check(more["first_sample_ms"] == truth["first_point_dropped"], f"fig13 {name}: the sample dropped")
        for ours, theirs in (("mean_static_ms", "mean_static"), ("mean_dynamic_ms", "mean_dynamic"), ("n", "n"),
                             ("speedup_of_sums", "speedup_of_sums"), ("median_static_ms", "median_static"),
                             ("median_dynamic_ms", "median_dynamic")):
            check.near(more[ours], truth[theirs], 1e-3, f"fig13 {name}: {ours}")


if __name__ == "__main__":
    sys.exit(run_tests(Check(), [whole_artifact, incomplete, cut_and_broken, extremes, refusals, public_part]))
