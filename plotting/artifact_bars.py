"""Figures 8, 9 and 10 of the SmartMoE artifact: bars of speed-ups from one log a bar.

The published reading: total time of all iterations, start-up included (fig. 9: of the epoch); a log without exactly
200 iteration lines is a failed run. The honest reading beside it: medians after start-up, and what the log shows."""

import os
import statistics

from plotting import layout
from plotting.errors import LogError
from plotting.figure import Figure
from plotting.formats.iteration_log import read_deepspeed, read_megatron
from plotting.formats.swin import read_swin
from plotting.statistics import ratio, steady, summary


def build_fig8(logdir):
    systems = ("fastmoe", "deepspeed", "fastermoe", "smartmoe")
    figure = Figure("fig8")

    def folder(group, system):
        return f"fig8/{group.cluster}/{group.gpus}gpus/{system}"

    _build(figure, logdir, layout.FIG8_GROUPS, systems, folder, _training_run,
           "End-to-end speed-up over FastMoE", "fastmoe")
    return figure


def build_fig9(logdir):
    figure = Figure("fig9")

    def folder(group, system):
        return f"fig9/{group.gpus}gpus/{system}"

    _build(figure, logdir, layout.FIG9_GROUPS, ("tutel", "fastmoe", "smartmoe"), folder, _swin_run,
           "Swin-MoE: speed-up over Tutel", "tutel")
    return figure


def build_fig10(logdir):
    figure = Figure("fig10")

    def folder(group, system):
        if system == "alpa":
            return f"fig10/alpa/{group.gpus}gpus"
        return f"fig8/inky/{group.gpus}gpus/{system}"

    _build(figure, logdir, layout.FIG10_GROUPS, ("fastmoe", "alpa", "smartmoe"), folder, _training_run,
           "Static choice alone: speed-up over FastMoE", "fastmoe")
    if not any(run["system"] == "alpa" and run["status"] != "missing" for run in figure.honest.get("runs", [])):
        figure.numbers = {}  # without it the figure would only repeat figure 8
    return figure


def _build(figure, logdir, groups, systems, folder, read_run, title, baseline):
    shown, runs = [], []
    for group in groups:
        row = [_find(figure, logdir, group, system, folder(group, system), read_run) for system in systems]
        if all(run["status"] == "missing" for run in row):
            figure.missing = [m for m in figure.missing if m not in {run["why"] for run in row}]
            figure.lacks(f"{figure.name}: the group {group.label()} (no log in {os.path.dirname(folder(group, 'x'))})")
            continue
        _compare(row, baseline)
        runs += row
        shown.append({"label": group.label(), "values": {run["system"]: run["speedup"] for run in row}})
    if not shown:
        return
    figure.numbers = {"figure": figure.name, "title": title, "unit": f"speed-up over {baseline}", "groups": shown}
    figure.honest = {"figure": figure.name, "title": f"{title}, read honestly", "runs": runs, "notes": _same_logs(runs)}
    figure.extra = {"systems": systems, "clusters": [group.cluster for group in groups if group.label() in
                                                     {g["label"] for g in shown}]}


def _find(figure, logdir, group, system, folder, read_run):
    """One bar: its log's statistics under both readings. Published times are None for a failed run."""
    run = {"label": group.label(), "system": system, "status": "missing", "why": "", "published_s": None,
           "steady_ms": None}
    pattern = layout.run_pattern(system, group.gate)
    found = layout.matches(logdir, folder, pattern)
    if len(found) != 1:
        count = f"{len(found)} logs match" if found else "no log matches"
        run["why"] = f"{figure.name}: {group.label()} {system}: {count} {folder}/{pattern}"
        figure.lacks(run["why"])
        return run
    run["file"] = os.path.relpath(found[0], logdir)
    try:
        read_run(run, found[0])
    except LogError as error:
        run["status"], run["why"] = "unreadable", str(error)
        figure.lacks(f"{figure.name}: {group.label()} {system}: {error}")
        return run
    if run["published_s"] is None:
        figure.lacks(f"{figure.name}: {group.label()} {system}: failed run, {run['why']} ({run['file']})")
    return run


def _training_run(run, path):
    log = (read_deepspeed if run["system"] == "deepspeed" else read_megatron)(path)
    run["status"], run["digest"] = log.status(), log.digest
    run["planned"] = log.planned
    if log.times_ms:
        run.update(summary(log.times_ms))
    else:
        run["n"] = 0
    if len(log.times_ms) == layout.PAPER_ITERATIONS:
        run["published_s"] = run["total_s"]
    else:
        run["why"] = f"{log.status()} after {run['n']} iterations"
    if log.status() == "complete":
        run["steady_ms"] = run["steady_median_ms"]


def _swin_run(run, path):
    log = read_swin(path)
    run["status"], run["digest"], run["hms"] = log.status(), log.digest, log.epochs_text
    run["n"] = len(log.intervals_s)
    if log.epochs_s:
        run["total_s"] = log.epochs_s[0]
    if len(log.epochs_s) == 1:
        run["published_s"] = run["total_s"]
    elif log.epochs_s:
        run["status"] = "failed"
        run["why"] = f"{len(log.epochs_s)} epochs where one was expected"
    else:
        run["why"] = f"truncated after {run['n']} printed steps"
    if log.intervals_s and run["published_s"] is not None:
        run["steady_ms"] = 1000 * statistics.median(steady(log.intervals_s))


def _compare(row, baseline):
    base = next(run for run in row if run["system"] == baseline)
    for run in row:
        run["speedup"] = ratio(base["published_s"], run["published_s"])
        run["speedup_steady"] = ratio(base["steady_ms"], run["steady_ms"])
        run["speedup_median"] = ratio(base.get("median_ms"), run.get("median_ms")) \
            if base["status"] == run["status"] == "complete" else None


def _same_logs(runs):
    """Bars drawn from byte-identical logs are not two measurements."""
    notes, first = [], {}
    for run in runs:
        digest = run.get("digest")
        if digest is None:
            continue
        if digest in first:
            run["same_log_as"] = first[digest]
            notes.append(f"{run['label']} {run['system']} is byte for byte the log of {first[digest]}")
        else:
            first[digest] = f"{run['label']} {run['system']}"
    return notes
