"""Figures 11, 12 and 13 of the SmartMoE artifact: performance model, layers, one layer over iterations."""

import os
import statistics

from plotting import layout
from plotting.errors import LogError
from plotting.estimates import panel
from plotting.figure import Figure
from plotting.formats.iteration_log import read_megatron
from plotting.formats.perf_model import read_perf_model
from plotting.formats.profiler import read_profile
from plotting.formats.replay import read_changes, read_replay
from plotting.statistics import ratio, steady


def build_fig11(logdir):
    """Estimated against measured times."""
    figure, panels, honest = Figure("fig11"), [], []
    for nodes, micro_batch in layout.FIG11_PANELS:
        name = f"fig11/perf_model_{nodes}nodes_mbs{micro_batch}.log"
        title = f"{nodes * layout.GPUS_PER_NODE}-{micro_batch}"
        data = _read(figure, f"the panel {title}", read_perf_model, os.path.join(logdir, name), name)
        if data is None:
            continue
        shown, more = panel(title, data.naive_ms, data.est_ms, data.real_ms)
        panels.append(shown)
        honest.append(more)
    if panels:
        figure.numbers = {"figure": "fig11", "title": "Performance model: measured against estimated", "unit": "ms",
                          "panels": panels}
        figure.honest = {"figure": "fig11", "title": "Performance model, calibrated on the even points, judged on the "
                         "odd ones", "panels": honest}
    return figure


def build_fig12(logdir):
    """Per layer: backward time of the MoE layer on each stage's first rank, static over dynamic."""
    figure = Figure("fig12")
    folders = {side: _one_folder(figure, logdir, side) for side in ("OFF", "ON")}
    if None in folders.values():
        return figure
    shape = layout.stages(os.path.basename(folders["OFF"]))
    if shape is None or shape != layout.stages(os.path.basename(folders["ON"])):
        figure.lacks("fig12: the two folders' names do not give one and the same _pP_dD_ layout")
        return figure
    depth, width, layers = shape
    profiles = [[_profile(figure, folders[side], stage, width) for side in ("OFF", "ON")] for stage in range(depth)]
    each = _layers_a_stage(figure, profiles, layers, depth)
    if not each:
        return figure
    rows = {"backward": [], "both": [], "forward": []}
    for static, dynamic in profiles:
        for layer in range(each):
            for name, directions in (("backward", ("bwd",)), ("both", ("fwd", "bwd")), ("forward", ("fwd",))):
                pair = [p and p.seconds(layer, directions) for p in (static, dynamic)]
                rows[name].append(ratio(*pair) if pair[1] else None)
    figure.numbers = {"figure": "fig12", "title": "Dynamic placement against static, per MoE layer (backward)",
                      "unit": "speed-up over static", "layers": rows["backward"]}
    figure.honest = {"figure": "fig12", "title": "The same runs: forward and backward, and end to end",
                     "layers_backward": rows["backward"], "layers_forward": rows["forward"],
                     "layers_forward_and_backward": rows["both"], **_end_to_end(figure, logdir)}
    for name, values in (("backward", rows["backward"]), ("forward_and_backward", rows["both"])):
        present = [v for v in values if v is not None]
        figure.honest[f"mean_{name}"] = statistics.fmean(present)
        figure.honest[f"min_{name}"], figure.honest[f"max_{name}"] = min(present), max(present)
    return figure


def _one_folder(figure, logdir, side):
    found = layout.matches(logdir, "fig12", f"*dynamic{side}*.prof", directories=True)
    if len(found) == 1:
        return found[0]
    count = f"{len(found)} folders match" if found else "no folder matches"
    figure.lacks(f"fig12: {count} fig12/*dynamic{side}*.prof")
    return None


def _profile(figure, folder, stage, width):
    """The first rank of a stage, or None; a profile cut short would compare unlike spans and is left out."""
    rank = stage * width
    name = f"{rank}.profiler"
    side = "ON" if "dynamicON" in os.path.basename(folder) else "OFF"
    profile = _read(figure, f"stage {stage}", read_profile, os.path.join(folder, name), f"fig12/*dynamic{side}*.prof/{name}")
    if profile is None:
        return None
    if (profile.rank, profile.stage) != (rank, stage):
        figure.lacks(f"fig12: {profile.path}: records of rank {profile.rank}, stage {profile.stage} in the file of "
                     f"rank {rank}, stage {stage}")
        return None
    if profile.iterations != layout.PAPER_ITERATIONS:
        figure.lacks(f"fig12: {profile.path}: truncated after {profile.iterations} iterations")
        return None
    return profile


def _layers_a_stage(figure, profiles, layers, depth):
    """Layers a stage: as the profiles have it, agreeing with the runs' name. 0 when no stage can be drawn."""
    counts = {p.layers() for pair in profiles for p in pair if p}
    if not any(all(pair) for pair in profiles):
        figure.lacks("fig12: no stage has both profiles")
        return 0
    if len(counts) != 1 or (layers and counts != {layers // depth}):
        figure.lacks(f"fig12: the profiles hold {sorted(counts)} layers a stage, the name says {layers} in {depth}")
        return 0
    return counts.pop()


def _end_to_end(figure, logdir):
    """Whole iterations of the same two runs, from their training logs."""
    times = {}
    for side in ("OFF", "ON"):
        found = layout.matches(logdir, "fig12", f"*dynamic{side}*.log")
        if len(found) != 1:
            figure.lacks(f"fig12: end to end: not one log matches fig12/*dynamic{side}*.log")
            return {}
        log = _read(figure, "end to end", read_megatron, found[0], os.path.relpath(found[0], logdir))
        if log is None:
            return {}
        if log.status() != "complete":
            figure.lacks(f"fig12: end to end: {log.path}: {log.status()} after {len(log.times_ms)} iterations")
            return {}
        times[side] = log.times_ms
    return {"end_to_end_by_total": sum(times["OFF"]) / sum(times["ON"]),
            "end_to_end_by_median": statistics.median(times["OFF"]) / statistics.median(times["ON"]),
            "end_to_end_by_steady_median":
                statistics.median(steady(times["OFF"])) / statistics.median(steady(times["ON"]))}


def build_fig13(logdir):
    """One layer's time over recorded iterations; the first sample is dropped, as the paper's script does."""
    figure, curves, honest = Figure("fig13"), {}, {}
    for frequency in layout.FIG13_FREQUENCIES:
        name = f"fig13/freq{frequency}"
        data = _read(figure, f"the curve dyn. {frequency}", read_replay, os.path.join(logdir, name), name)
        if data is None:
            continue
        static, dynamic = data
        name = f"fig13/changed_freq{frequency}"
        changes = _read(figure, f"the changes of dyn. {frequency}", read_changes, os.path.join(logdir, name), name)
        curves[f"freq{frequency}"] = {"static_ms": static[1:], "dynamic_ms": dynamic[1:], "changes": changes or []}
        honest[f"freq{frequency}"] = {
            "first_sample_ms": [static[0], dynamic[0]], "n": len(static) - 1,
            "mean_static_ms": statistics.fmean(static[1:]), "mean_dynamic_ms": statistics.fmean(dynamic[1:]),
            "median_static_ms": statistics.median(static[1:]), "median_dynamic_ms": statistics.median(dynamic[1:]),
            "speedup_of_sums": sum(static[1:]) / sum(dynamic[1:]),
            "speedup_of_medians": statistics.median(static[1:]) / statistics.median(dynamic[1:]),
            "changes": len(changes or [])}
    if curves:
        figure.numbers = {"figure": "fig13", "title": "One MoE layer over iterations", "unit": "ms", "curves": curves}
        figure.honest = {"figure": "fig13", "title": "The same samples at the iterations where they were taken",
                         "curves": honest}
    return figure


def _read(figure, what, reader, path, name):
    """The reader's value, or None with the reason in figure.missing."""
    if not os.path.isfile(path):
        figure.lacks(f"{figure.name}: {what}: no file {name}")
        return None
    try:
        return reader(path)
    except LogError as error:
        figure.lacks(f"{figure.name}: {what}: {error}")
        return None
