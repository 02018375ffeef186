"""Figures 8 to 13 as the paper draws them: the published reading, the paper's sizes, colours, hatches and labels."""

import math

from plotting.style import GREEN, GREY, LIGHT_BLUE, PAPER, RED, TEAL, plt

BAR_WIDTH = {3: 0.26, 4: 0.2}
CLUSTER_GAP = 0.25
FAILED = 1e-4  # the height the paper gives a failed run
FAILED_BELOW = 0.5
MANY_TICKS = 10  # above, an axis chooses its own


def draw(figure):
    """The page of one figure; figure.numbers must not be empty."""
    return {"fig8": fig8, "fig9": fig9, "fig10": fig10, "fig11": fig11, "fig12": fig12, "fig13": fig13}[figure.name](figure)


def fig8(figure):
    page, axis = plt.subplots(figsize=(14, 2))
    published(axis, figure, top=3)
    return page


def fig9(figure):
    page, axis = plt.subplots(figsize=(6, 2.5))
    published(axis, figure, top=10)
    return page


def fig10(figure):
    page, axis = plt.subplots(figsize=(6, 2.5))
    published(axis, figure, top=3)
    return page


def published(axis, figure, top):
    """The bars of the published reading, failed runs marked as the paper does."""
    rows = [group["values"] for group in figure.numbers["groups"]]
    runs = {(run["label"], run["system"]): run for run in figure.honest["runs"]}
    marks = {}
    for i, group in enumerate(figure.numbers["groups"]):
        for system, value in group["values"].items():
            if runs[group["label"], system]["status"] == "missing":
                marks[i, system] = ("no log", GREY)
            elif value is None and runs[group["label"], system]["published_s"] is not None:
                marks[i, system] = ("no baseline", GREY)
            elif system == "deepspeed" and (value is None or value <= FAILED_BELOW):
                marks[i, system] = ("OOM", RED)
            elif value is None:
                marks[i, system] = ("failed", RED)
    bars(axis, figure, rows, marks, top)


def places(clusters):
    """x of each group, and of the lines between clusters."""
    xs, lines, x = [], [], 0.0
    for i, cluster in enumerate(clusters):
        if i and cluster != clusters[i - 1]:
            lines.append(x - 0.5 + CLUSTER_GAP / 2)
            x += CLUSTER_GAP
        xs.append(x)
        x += 1.0
    return xs, lines


def bars(axis, figure, rows, marks, top, legend=True):
    """Groups of bars; rows = [{system: speed-up or None}] a group; marks[(group, system)] = (words, colour) stand
    upright at a bar's foot. The axis ends at `top`, or higher where a bar does."""
    systems, clusters = figure.extra["systems"], figure.extra["clusters"]
    width = BAR_WIDTH[len(systems)]
    xs, lines = places(clusters)
    for i, system in enumerate(systems):
        name, colour, hatch = PAPER[system]
        at = [x + (i - (len(systems) - 1) / 2) * width for x in xs]
        heights = [FAILED if row.get(system) is None else row[system] for row in rows]
        axis.bar(at, heights, width, color=colour, hatch=hatch, edgecolor="black", linewidth=0.7, label=name)
        for group, x in enumerate(at):
            if (group, system) in marks:
                words, colour = marks[group, system]
                axis.text(x, 0.02 * top, words, rotation=90, ha="center", va="bottom", color=colour, fontsize=8)
    for line in lines:
        axis.axvline(line, color="black", linewidth=1.0)
    top = max(top, highest(rows))
    for cluster in dict.fromkeys(c for c in clusters if c):
        inside = [x for x, c in zip(xs, clusters) if c == cluster]
        axis.text(sum(inside) / len(inside), top * 1.02, f"on {cluster}", ha="center", va="bottom", fontsize=10)
    axis.set_xticks(xs, [group["label"].rpartition(" ")[2] for group in figure.numbers["groups"]])
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(xs[0] - 0.6, xs[-1] + 0.6)
    axis.set_ylim(0, top)
    if top <= MANY_TICKS:
        axis.set_yticks(range(0, top + 1, 1 if top < 6 else 2))
    axis.set_ylabel("Speedup", fontsize=10)
    if legend:
        axis.legend(loc="upper left", ncol=len(systems), columnspacing=1.0)


def highest(rows):
    """The next whole number above all bars."""
    return math.ceil(max([value for row in rows for value in row.values() if value is not None], default=1.0))


def limits(values):
    """The paper's axis limits: a fifth below the least, a third above the greatest, at tens."""
    low = int(0.8 * min(values)) // 10 * 10
    return low, max(int(1.3 * max(values)) // 10 * 10, low + 10)


def fig11(figure):
    panels = figure.numbers["panels"]
    page, axes = plt.subplots(1, len(panels), figsize=(6, 1.5), squeeze=False)
    for axis, panel in zip(axes[0], panels):
        scatter(axis, panel["estimated_ms"], panel["real_ms"])
        axis.axvline(panel["naive_ms"], color=GREEN, linewidth=1.2)
        axis.set_title(panel["title"])
        axis.set_xlabel("Estimation / ms")
    axes[0][0].set_ylabel("Real / ms")
    page.subplots_adjust(wspace=0.3)
    return page


def scatter(axis, estimates, values, bounds=None, colour=LIGHT_BLUE):
    """Points about the diagonal; bounds = (low, high) of both axes, the paper's by default."""
    low, high = bounds or limits(estimates + values)
    axis.scatter(estimates, values, marker="x", s=10, linewidths=0.6, color=colour)
    axis.plot([low, high], [low, high], "--", color=TEAL, linewidth=1.2)
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)


def fig12(figure):
    layers = figure.numbers["layers"]
    page, axis = plt.subplots(figsize=(6, 1.5))
    pairs(axis, layers, "Dynamic", GREEN)
    axis.set_xlabel("# layers")
    axis.set_ylabel("Speedup")
    axis.legend(loc="upper right", ncol=2)
    return page


def pairs(axis, layers, name, colour):
    """A pair of bars a layer: static = 1 and the speed-up; a layer without profiles stays empty."""
    present = [(i, value) for i, value in enumerate(layers) if value is not None]
    axis.bar([i - 0.2 for i, _ in present], [1.0] * len(present), 0.4, color="#f6d55c", edgecolor="black", linewidth=0.7,
             label="Static")
    axis.bar([i + 0.2 for i, _ in present], [value for _, value in present], 0.4, color="#9bd19b", hatch="//",
             edgecolor="black", linewidth=0.7, label=name)
    for i, value in enumerate(layers):
        if value is None:
            axis.text(i, 0.04, "no profile", rotation=90, ha="center", va="bottom", color=GREY, fontsize=7)
    axis.set_xlim(-0.7, len(layers) - 0.3)
    axis.set_xticks([])
    top = max(2.0, math.ceil(max(value for _, value in present) * 2) / 2)
    axis.set_ylim(0, top)
    if top <= MANY_TICKS:
        axis.set_yticks([0.5 * k for k in range(int(top * 2) + 1)])


def fig13(figure):
    page, axis = plt.subplots(figsize=(6, 2.25))
    curves = figure.numbers["curves"]
    xs = {name: [1 + 10 * k for k in range(len(curve["dynamic_ms"]))] for name, curve in curves.items()}
    last = "freq100" if "freq100" in curves else next(iter(curves))  # the paper's static curve is that of freq100
    axis.plot(xs[last], curves[last]["static_ms"], color="#e07b39", linewidth=1.0, label="static")
    if "freq100" in curves:
        axis.plot(xs["freq100"], curves["freq100"]["dynamic_ms"], color=GREEN, linewidth=1.0, label="dyn. 100")
    if "freq10" in curves:
        axis.plot(xs["freq10"], curves["freq10"]["dynamic_ms"], color="#3b7dd8", linewidth=1.0, label="dyn. 10")
    label = "change"
    for name, curve in curves.items():
        stars = [(i, curve["dynamic_ms"][i // 10]) for i in curve["changes"] if i // 10 < len(curve["dynamic_ms"])]
        axis.scatter([x for x, _ in stars], [y for _, y in stars], marker="*", s=22, color="red", linewidths=0, zorder=3,
                     label=label)
        label = None
    axis.set_ylim(100, 200)
    axis.set_xlabel("Iterations")
    axis.set_ylabel("Execution Time / ms")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=4, columnspacing=1.2)
    return page
