"""The numbers of the figures from Ballast's own runs: one run log a policy, and a recorded trace for the heat map.

Figures go by the paper's where they show the same thing: fig8 end to end, fig10 what share of forced-uniform
routing's throughput is reached, fig11 predicted against measured, fig12 by layer, fig13 over iterations; loss and load
have no counterpart there."""

import os
import statistics

from plotting import own_load
from plotting.errors import LogError
from plotting.estimates import panel
from plotting.figure import Figure
from plotting.formats.runlog import read_run
from plotting.formats.simulated import read_simulated
from plotting.statistics import ratio, steady

ORDER = ("static", "planned", "smartmoe", "eplb", "fastermoe", "ballast", "uniform")


def build(logdir):
    """All figures that the folder's logs determine."""
    figures = {name: Figure(name) for name in ("fig8", "fig10", "fig12", "fig13", "loss", "fig11", "load")}
    families = _families(logdir, list(figures.values())[:5])
    _speedups(figures["fig8"], families)
    _shares(figures["fig10"], families)
    main = max(families, key=lambda label: len(families[label]), default=None)
    if main is not None:
        _layers(figures["fig12"], families[main], main)
        _curves(figures["fig13"], families[main], main)
        _losses(figures["loss"], families[main], main)
    _predictions(figures["fig11"], logdir)
    own_load.build(figures["load"], logdir)
    vision = Figure("fig9")
    vision.lacks("fig9: a vision model; only the SmartMoE artifact's logs hold runs of one")
    return [*figures.values(), vision]


def _families(logdir, figures):
    """{label: {system: run}}: runs that differ in the policy alone; forced-uniform joins the others of as many ranks."""
    families, uniform = {}, []
    for name in sorted(os.listdir(logdir)):
        if not name.endswith(".jsonl"):
            continue
        try:
            run = read_run(os.path.join(logdir, name))
        except LogError as error:
            _lacks(figures, str(error))
            continue
        if not run.steps():
            _lacks(figures, f"{name}: no step")
        elif run.gate == "uniform":
            uniform.append(run)
        else:
            _join(families, f"{run.ranks} ranks, {run.gate_name()} gate", run, figures)
    for run in uniform:
        labels = [label for label in families if label.startswith(f"{run.ranks} ranks,")]
        for label in labels or [f"{run.ranks} ranks, uniform"]:
            _join(families, label, run, figures)
    return {label: dict(sorted(runs.items(), key=_rank)) for label, runs in families.items()}


def _join(families, label, run, figures):
    runs = families.setdefault(label, {})
    if run.system() in runs:
        _lacks(figures, f"{os.path.basename(run.path)}: a second run of {run.system()} ({label}); the first is drawn")
        return
    runs[run.system()] = run
    if run.status() != "complete":
        _lacks(figures, f"{os.path.basename(run.path)}: truncated after {run.steps()} of {max(run.planned)} steps")


def _lacks(figures, sentence):
    for figure in figures:
        figure.lacks(sentence)


def _rank(item):
    base = item[0].partition(":")[0]
    return (ORDER.index(base) if base in ORDER else len(ORDER), item[0])


def _seconds_a_token(run, honest):
    """None for a run that did not finish: fewer steps are another measurement."""
    if run.status() != "complete":
        return None
    per_step = statistics.median(steady(run.step_us)) if honest else sum(run.step_us) / run.steps()
    return per_step / 1e6 / (statistics.median(run.tokens) or 1)


def _against(families, base):
    """[{label, total: {system: speed relative to the run `base`}, median: likewise}], one a family that holds it."""
    rows = []
    for label, runs in families.items():
        if base not in runs or len(runs) < 2:
            continue
        row = {"label": label, "total": {}, "median": {}}
        for key, honest in (("total", False), ("median", True)):
            one = _seconds_a_token(runs[base], honest)
            for system, run in runs.items():
                row[key][system] = ratio(one, _seconds_a_token(run, honest))
        rows.append(row)
    return rows


def _fill(figure, rows, title, unit, readings):
    figure.numbers = {"figure": figure.name, "title": title, "unit": unit,
                      "groups": [{"label": row["label"], "values": row["total"]} for row in rows]}
    figure.honest = {"figure": figure.name, "title": readings, "unit": unit,
                     "groups": [{"label": row["label"], "values": row["median"]} for row in rows]}


def _speedups(figure, families):
    rows = _against(families, "static")
    if rows:
        _fill(figure, rows, "End-to-end speed-up over static placement", "speed-up over static",
              "By the median step, the first tenth of the run left out")
    else:
        figure.lacks("fig8: a static run and one of another policy with the same gate and ranks are needed")


def _shares(figure, families):
    rows = _against(families, "uniform")
    if rows:
        _fill(figure, rows, "Throughput as a share of forced-uniform routing's", "share of uniform",
              "By the median step, the first tenth of the run left out")
    else:
        figure.lacks("fig10: a run with uniform routing and one without are needed")


def _layers(figure, runs, label):
    """Static's imbalance over the policy's, a layer: how much faster the most loaded rank is done with its experts."""
    if "static" not in runs or not runs["static"].imbalance[0]:
        figure.lacks("fig12: a static run with MoE layers is needed")
        return
    static = _mean_by_layer(runs["static"])
    systems = {name: run for name, run in runs.items() if name not in ("static", "uniform")
               and len(run.imbalance[0]) == len(static)}
    if not systems:
        figure.lacks("fig12: a run of a policy other than static is needed")
        return
    speedups = {name: [s / mine for s, mine in zip(static, _mean_by_layer(run))] for name, run in systems.items()}
    shown = "ballast" if "ballast" in speedups else next(iter(speedups))
    figure.numbers = {"figure": "fig12", "title": f"Expert work of the most loaded rank, static over policy ({label})",
                      "unit": "speed-up over static", "system": shown, "layers": speedups[shown], "systems": speedups}
    figure.honest = {"figure": "fig12", "title": "Imbalance (max / mean tokens of a rank) behind it: mean and 99th percentile",
                     "mean": {name: _mean_by_layer(run) for name, run in runs.items() if name != "uniform"},
                     "p99": {name: _p99_by_layer(run) for name, run in runs.items() if name != "uniform"},
                     "end_to_end": {name: _ratio_of_medians(runs["static"], run) for name, run in systems.items()}}


def _mean_by_layer(run):
    return [statistics.fmean(column) for column in zip(*steady(run.imbalance))]


def _p99_by_layer(run):
    return [sorted(column)[int(0.99 * (len(column) - 1))] for column in zip(*steady(run.imbalance))]


def _ratio_of_medians(static, run):
    return statistics.median(steady(static.step_us)) / statistics.median(steady(run.step_us))


def _curves(figure, runs, label):
    """Step time and imbalance over steps, with the steps before which homes moved."""
    curves, cost = {}, {}
    for name, run in runs.items():
        curves[name] = {
            "step_ms": [us / 1000.0 for us in run.step_us],
            "imbalance": [statistics.fmean(row) if row else 1.0 for row in run.imbalance],
            "changes": [i for i, row in enumerate(run.moved, start=1) if sum(row)]}
        cost[name] = {"moved_bytes": run.moved_bytes, "fill_bytes": run.fill_bytes, "copies": [sum(r) for r in run.copies],
                      "experts_moved": sum(map(sum, run.moved)), "late_repairs": sum(map(sum, run.late)),
                      "median_step_ms": statistics.median(steady(run.step_us)) / 1000.0,
                      "p99_step_ms": sorted(steady(run.step_us))[int(0.99 * (len(steady(run.step_us)) - 1))] / 1000.0}
    figure.numbers = {"figure": "fig13", "title": f"Step time and imbalance over steps ({label})", "unit": "ms",
                      "curves": curves}
    figure.honest = {"figure": "fig13", "title": "What balancing moves: state of homes and fills of copies", "unit": "bytes",
                     "curves": cost}


def _losses(figure, runs, label):
    curves = {}
    for name, run in runs.items():
        seconds, clock = [], 0.0
        for us in run.step_us:
            clock += us / 1e6
            seconds.append(clock)
        curves[name] = {"loss": run.losses, "seconds": seconds}
    figure.numbers = {"figure": "loss", "title": f"Training loss ({label})", "unit": "nats", "curves": curves}
    if "static" in runs:
        base = runs["static"].losses
        figure.honest = {"figure": "loss", "title": "Loss minus that of the static run at the same step", "unit": "nats",
                         "differences": {name: [a - b for a, b in zip(run.losses, base)] for name, run in runs.items()
                                         if name != "static"}}


PREDICTED = ".simulate.json"  # beside RUN.jsonl: what `ballast-plan simulate --log RUN.jsonl --json` said
EVEN = "even" + PREDICTED  # the same without a trace: every expert takes equally much


def _predictions(figure, logdir):
    panels, honest, naive = [], [], None
    names = [name for name in sorted(os.listdir(logdir)) if name.endswith(PREDICTED)]
    if EVEN in names:
        names.remove(EVEN)
        even = _predicted(figure, logdir, EVEN)
        naive = even and even.median_us / 1000.0
    for name in sorted(names, key=lambda name: _rank((name.removesuffix(PREDICTED).replace("_", ":"), None))):
        data = _predicted(figure, logdir, name)
        if data is None:
            continue
        if not data.measured_us:
            figure.lacks(f"fig11: {name}: no measured times beside the predicted ones")
            continue
        shown, more = panel(name.removesuffix(PREDICTED).replace("_", ":"), naive, [us / 1000.0 for us in data.predicted_us],
                            [us / 1000.0 for us in data.measured_us])
        panels.append(shown)
        honest.append(more)
    if panels:
        figure.numbers = {"figure": "fig11", "title": "Step time: measured against predicted", "unit": "ms", "panels": panels}
        figure.honest = {"figure": "fig11", "title": "Predictions calibrated on the even steps, judged on the odd ones",
                         "panels": honest}
    elif not figure.missing:
        figure.lacks(f"fig11: no prediction beside the runs (*{PREDICTED}, as ballast-plan simulate --json writes it)")


def _predicted(figure, logdir, name):
    try:
        return read_simulated(os.path.join(logdir, name))
    except LogError as error:
        figure.lacks(f"fig11: {error}")
        return None
