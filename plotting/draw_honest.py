"""The second page of figures 8 to 13: the published reading beside one that hides nothing."""

import textwrap

from plotting.draw_paper import bars, highest, limits, pairs, published, scatter
from plotting.style import GREEN, GREY, LIGHT_BLUE, RED, TEAL, clean, plt


def draw(figure):
    """The page of one figure; figure.numbers must not be empty."""
    if figure.name in ("fig8", "fig9", "fig10"):
        return speedups(figure)
    return {"fig11": fig11, "fig12": fig12, "fig13": fig13}[figure.name](figure)


def notes(page, lines, width):
    """Small print below a page."""
    wrapped = [piece for line in lines for piece in textwrap.wrap(line, width, subsequent_indent="   ")]
    page.text(0.01, -0.01, "\n".join(wrapped), ha="left", va="top", fontsize=7, color=GREY, linespacing=1.4)


def speedups(figure):
    """Two rows of the same bars: by total time with start-up, by the median iteration after it."""
    groups = figure.numbers["groups"]
    wide = len(groups) > 4
    page, axes = plt.subplots(2, 1, figsize=(14 if wide else 6, 4.6 if wide else 5.2))
    runs = {(run["label"], run["system"]): run for run in figure.honest["runs"]}
    honest = [{s: runs[group["label"], s]["speedup_steady"] for s in figure.extra["systems"]} for group in groups]
    top = max(10 if figure.name == "fig9" else 3, highest([group["values"] for group in groups]), highest(honest))
    published(axes[0], figure, top)
    bars(axes[1], figure, honest, _marks(figure, runs), top, legend=False)
    what = "one epoch" if figure.name == "fig9" else "total time of 200 iterations, start-up included"
    axes[0].set_title(f"published reading: {what}", loc="left", color=GREY, pad=16)
    axes[1].set_title("honest reading: median optimizer step, the first tenth of the run left out", loc="left", color=GREY,
                      pad=16)
    page.tight_layout()
    lines = [f"Same log twice: {note}." for note in figure.honest["notes"]]
    lines += [f"Not drawn: {sentence}." for sentence in figure.missing]
    notes(page, lines, 210 if wide else 105)
    return page


def _marks(figure, runs):
    """What the honest reading says at a bar's foot."""
    marks = {}
    for i, group in enumerate(figure.numbers["groups"]):
        for system in figure.extra["systems"]:
            run = runs[group["label"], system]
            if run["status"] == "missing":
                marks[i, system] = ("no log", GREY)
            elif run["status"] != "complete":
                marks[i, system] = (run["status"], RED)
            elif run["speedup_steady"] is None:
                marks[i, system] = ("no baseline", GREY)
            elif "same_log_as" in run:
                marks[i, system] = ("same log", RED)
    return marks


def fig11(figure):
    """The estimates as they are and after a line fitted on the even points, judged on the odd ones."""
    panels, more = figure.numbers["panels"], figure.honest["panels"]
    page, axes = plt.subplots(2, len(panels), figsize=(max(2.4 * len(panels), 4.8), 4.6), squeeze=False)
    for column, (panel, extra) in enumerate(zip(panels, more)):
        top, bottom = axes[0][column], axes[1][column]
        bounds = limits(panel["estimated_ms"] + panel["real_ms"])
        scatter(top, panel["estimated_ms"], panel["real_ms"], bounds)
        scatter(bottom, extra["calibrated_ms"], panel["real_ms"][1::2], bounds, colour="#e07b39")
        for axis, error, share in ((top, "mape", "r2"), (bottom, "mape_calibrated", "r2_calibrated")):
            r2_text = "none" if panel[share] is None else f"{panel[share]:.2f}"
            axis.text(0.04, 0.95, f"MAPE {100 * panel[error]:.1f} %\nR² {r2_text}", transform=axis.transAxes, va="top",
                      fontsize=8)
        top.set_title(f"{panel['title']}: as published")
        bottom.set_title(f"{extra['slope']:.2f} x estimate + {extra['intercept_ms']:.1f} ms")
        bottom.set_xlabel("Estimation / ms")
    for row in axes:
        row[0].set_ylabel("Real / ms")
    page.tight_layout()
    lines = ["Lower row: the line is fitted on the even points; drawn and judged are the odd ones."]
    notes(page, lines + [f"Not drawn: {sentence}." for sentence in figure.missing], 100)
    return page


def fig12(figure):
    """Backward alone beside forward and backward, with the whole iteration's speed-up as lines."""
    page, axes = plt.subplots(2, 1, figsize=(6, 3.8))
    pairs(axes[0], figure.honest["layers_backward"], "Dynamic", GREEN)
    pairs(axes[1], figure.honest["layers_forward_and_backward"], "Dynamic", GREEN)
    axes[0].set_title("published reading: backward of the MoE layer, one rank a stage", loc="left", color=GREY)
    axes[1].set_title("honest reading: forward and backward; lines: the whole iteration", loc="left", color=GREY)
    for name, dashes in (("steady_median", "-"), ("total", "--")):
        value = figure.honest.get(f"end_to_end_by_{name}")
        if value is not None:
            words = "median, start-up left out" if name == "steady_median" else "total"
            axes[1].axhline(value, color=RED, linestyle=dashes, linewidth=1.1, label=f"end to end, {words}: {value:.3f}")
    axes[1].set_xlabel("# layers")
    for axis in axes:
        axis.set_ylabel("Speedup")
        axis.legend(loc="upper right", ncol=2, fontsize=7)
    page.tight_layout()
    notes(page, [f"Not drawn: {sentence}." for sentence in figure.missing], 105)
    return page


def fig13(figure):
    """Every sample at its own iteration, from zero; and what the curves leave out."""
    curves = figure.numbers["curves"]
    page, axis = plt.subplots(figsize=(6, 3.0))
    colours = {"freq10": "#3b7dd8", "freq100": TEAL}
    lines = []
    for name, curve in curves.items():
        extra = figure.honest["curves"][name]
        xs = [1 + 10 * k for k in range(len(curve["dynamic_ms"]) + 1)]
        static = [extra["first_sample_ms"][0]] + curve["static_ms"]
        dynamic = [extra["first_sample_ms"][1]] + curve["dynamic_ms"]
        every = name.removeprefix("freq")
        axis.plot(xs, static, color="#e07b39" if name == "freq10" else "#9c6b3f", linewidth=0.9, label=f"static (run {every})")
        axis.plot(xs, dynamic, color=colours.get(name, LIGHT_BLUE), linewidth=0.9, label=f"dyn. {every}")
        stars = [(i, dynamic[i // 10]) for i in curve["changes"] if i // 10 < len(dynamic)]
        axis.scatter([x for x, _ in stars], [y for _, y in stars], marker="*", s=16, color="red", linewidths=0, zorder=3)
        lines.append(f"dyn. {every}: median {extra['median_dynamic_ms']:.1f} ms against {extra['median_static_ms']:.1f} ms "
                     f"static ({extra['speedup_of_medians']:.3f} x); {extra['changes']} changes (stars).")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("Iterations")
    axis.set_ylabel("Execution Time / ms")
    axis.set_title("honest reading: no shift, the first sample kept, the axis from zero", loc="left", color=GREY)
    axis.legend(loc="lower right", ncol=2)
    clean(axis)
    page.tight_layout()
    lines.append("Each sample is the least of four rounds and the move falls into the first: moves never enter the curve. "
                 "Each decision saw the very table it was then run on.")
    notes(page, lines + [f"Not drawn: {sentence}." for sentence in figure.missing], 105)
    return page
