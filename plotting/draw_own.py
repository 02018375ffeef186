"""Figures from Ballast's own runs. One colour and dash a policy everywhere, readable in grey and without colour vision."""

import statistics

from plotting.style import GREY, RED, clean, own_look, plt

SMOOTH = 15  # steps under the running median that carries a curve
MAX_LAYERS_SHOWN = 8


def pages(figure):
    """[(suffix, page)]: what the figure shows, then the reading beside it."""
    draw = {"fig8": (speeds, speeds_by_median), "fig10": (speeds, speeds_by_median),
            "fig11": (predicted, calibrated), "fig12": (layers, imbalances), "fig13": (over_steps, moved), "loss": (losses, differences), "load": (heat,)}[figure.name]
    made = [(suffix, painter(figure)) for suffix, painter in zip(("", "_honest"), draw) if painter is not differences or
            figure.honest]
    return made


def speeds(figure):
    """Bars by the total time of the run, start-up included."""
    return _bars(figure, figure.numbers, "whole run, start-up included")


def speeds_by_median(figure):
    return _bars(figure, figure.honest, "median step, the first tenth left out")


def _bars(figure, numbers, reading):
    groups = numbers["groups"]
    widest = max(len(group["values"]) for group in groups)
    page, axes = plt.subplots(1, len(groups), figsize=(max(4.2, 0.95 * widest + 0.6) * len(groups), 2.6), squeeze=False,
                              sharey=True)
    percent = figure.name == "fig10"
    scale = 100.0 if percent else 1.0
    for axis, group in zip(axes[0], groups):
        for i, (system, value) in enumerate(group["values"].items()):
            _, colour, _ = own_look(system, i)
            if value is None:
                axis.text(i, 0.02 * scale, "did not finish", rotation=90, ha="center", va="bottom", color=RED, fontsize=8)
                continue
            axis.bar(i, value * scale, 0.66, color=colour, edgecolor="black", linewidth=0.6)
            axis.annotate(f"{100 * value:.0f} %" if percent else f"{value:.2f}", (i, value * scale), (0, 3),
                          textcoords="offset points", ha="center", va="bottom", fontsize=8,
                          bbox={"color": "white", "pad": 0.5})
        axis.axhline(scale, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        axis.set_xticks(range(len(group["values"])), [_two_lines(own_look(s)[0]) for s in group["values"]], fontsize=8)
        axis.set_title(f"{group['label']}: {reading}", loc="left", color=GREY, fontsize=8)
        axis.set_xlim(-0.6, len(group["values"]) - 0.4)
        axis.margins(y=0.12)
        clean(axis)
    axes[0][0].set_ylabel("Throughput / % of uniform" if percent else "Speed-up over static")
    page.tight_layout()
    return page


def _two_lines(name):
    return name.replace(", ", ",\n").replace("uniform routing", "uniform\nrouting").replace("planned once", "planned\nonce")


def predicted(figure):
    """Measured against predicted step times, a panel a policy, all on the same axes."""
    return _estimates(figure, [(p["estimated_ms"], p["real_ms"], p["mape"], p["r2"]) for p in figure.numbers["panels"]],
                      [""] * len(figure.numbers["panels"]))


def calibrated(figure):
    """The odd steps after a line fitted on the even ones."""
    more = figure.honest["panels"]
    rows = [(m["calibrated_ms"], p["real_ms"][1::2], p["mape_calibrated"], p["r2_calibrated"])
            for p, m in zip(figure.numbers["panels"], more)]
    return _estimates(figure, rows, [f"{m['slope']:.2f} x prediction {m['intercept_ms']:+.0f} ms" for m in more])


def _estimates(figure, rows, lines):
    panels = figure.numbers["panels"]
    page, axes = plt.subplots(1, len(rows), figsize=(1.2 + 1.75 * len(rows), 2.4), squeeze=False, sharex=True, sharey=True)
    times = sorted(ms for row in rows for ms in row[0] + row[1])
    low, high = 0.9 * times[0], 1.1 * times[int(0.99 * (len(times) - 1))]
    beyond = sum(not (low <= e <= high and low <= v <= high) for row in rows for e, v in zip(row[0], row[1]))
    for i, (axis, panel, (est, real, error, share), line) in enumerate(zip(axes[0], panels, rows, lines)):
        name, colour, _ = own_look(panel["title"], i)
        axis.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        if panel["naive_ms"] is not None and not line:
            axis.axvline(panel["naive_ms"], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axis.scatter(est, real, s=7, color=colour, alpha=0.6, linewidths=0)
        axis.set_title(name + (f"\n{line}" if line else ""), fontsize=8)
        words = f"MAPE {100 * error:.1f} %" + ("" if share is None else f"\nR² {share:.2f}")
        axis.text(0.98, 0.03, words, transform=axis.transAxes, ha="right", va="bottom", fontsize=7.5)
        axis.set_xlabel("Predicted / ms")
        axis.set_xlim(low, high)
        axis.set_ylim(low, high)
        axis.set_aspect("equal")
        clean(axis)
    axes[0][0].set_ylabel("Measured step / ms")
    page.tight_layout()
    notes = [] if lines[0] else ["Dotted: the prediction when every expert takes equally much."]
    notes += [f"{beyond} steps lie beyond the axes."] if beyond else []
    page.text(0.01, 0.0, "  ".join(notes), ha="left", va="top", fontsize=7, color=GREY)
    return page


def layers(figure):
    """Speed-up of the most loaded rank's expert work, a group of bars a layer."""
    systems = figure.numbers["systems"]
    count = len(figure.numbers["layers"])
    page, axis = plt.subplots(figsize=(max(4.5, min(14, 0.55 + 0.28 * count * len(systems))), 2.3))
    width = 0.8 / len(systems)
    for i, (system, values) in enumerate(systems.items()):
        name, colour, _ = own_look(system, i)
        axis.bar([k + (i - (len(systems) - 1) / 2) * width for k in range(count)], values, width, color=colour,
                 edgecolor="black", linewidth=0.5, label=name)
    axis.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    axis.set_xticks(range(count), [str(k) for k in range(count)])
    axis.set_xlabel("MoE layer")
    axis.set_ylabel("Imbalance, static / policy")
    axis.margins(x=0.02)
    axis.set_title("how much sooner the fullest rank is done with its experts", loc="left", color=GREY, pad=22)
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 0.99), ncol=len(systems), frameon=False)
    clean(axis)
    return page


def imbalances(figure):
    """Mean and 99th percentile of each layer's imbalance."""
    systems = figure.honest["mean"]
    count = len(figure.numbers["layers"])
    page, axis = plt.subplots(figsize=(max(5.6, min(14, 0.6 + 0.22 * count * len(systems))), 2.5))
    for i, (system, values) in enumerate(systems.items()):
        name, colour, _ = own_look(system, i)
        xs = [k + (i - (len(systems) - 1) / 2) * 0.16 for k in range(len(values))]
        worst = figure.honest["p99"][system]
        axis.vlines(xs, values, worst, color=colour, linewidth=1.2)
        axis.scatter(xs, values, s=20, color=colour, edgecolors="black", linewidths=0.4, zorder=3,
                     marker="os^Dvp"[i % 6], label=name)
    axis.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    axis.set_xticks(range(count), [str(k) for k in range(count)])
    axis.set_xlabel("MoE layer")
    axis.set_ylabel("Imbalance (max / mean)")
    ends = ", ".join(f"{own_look(s)[0]} {v:.2f}" for s, v in figure.honest["end_to_end"].items())
    axis.set_title("mean (mark) to 99th percentile (line)", loc="left", color=GREY, pad=22)
    page.text(0.01, -0.08, f"Speed-up over static end to end, by the median step: {ends}", ha="left", va="top", fontsize=7,
              color=GREY)
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 0.99), ncol=len(systems), frameon=False)
    clean(axis)
    return page


def running_median(values):
    """Each value's median over SMOOTH neighbours; at the start, where losses fall steeply, over as many before as after."""
    widths = (min(SMOOTH // 2, i) for i in range(len(values)))
    return [statistics.median(values[i - w:i + w + 1]) for i, w in enumerate(widths)]


def over_steps(figure):
    """Step time and imbalance; stars: homes moved before the step."""
    curves = figure.numbers["curves"]
    page, (upper, lower) = plt.subplots(2, 1, figsize=(6.4, 4.0), sharex=True)
    late = [ms for curve in curves.values() for ms in curve["step_ms"][len(curve["step_ms"]) // 10:]]
    for i, (system, curve) in enumerate(curves.items()):
        name, colour, dashes = own_look(system, i)
        steps = range(1, len(curve["step_ms"]) + 1)
        smooth = running_median(curve["step_ms"])
        upper.plot(steps, curve["step_ms"], color=colour, linewidth=0.5, alpha=0.3)
        upper.plot(steps, smooth, color=colour, linewidth=1.4, linestyle=dashes, label=name)
        lower.plot(steps, curve["imbalance"], color=colour, linewidth=1.2, linestyle=dashes)
        for axis, values in ((upper, smooth), (lower, curve["imbalance"])):
            axis.scatter(curve["changes"], [values[k - 1] for k in curve["changes"]], marker="*", s=26, color=colour,
                         edgecolors="black", linewidths=0.3, zorder=3)
    if any(curve["changes"] for curve in curves.values()):
        upper.scatter([], [], marker="*", s=26, color="white", edgecolors="black", linewidths=0.6, label="homes moved")
    upper.set_ylim(0, 1.25 * sorted(late)[int(0.99 * (len(late) - 1))])
    upper.set_ylabel("Step time / ms")
    lower.set_ylabel("Imbalance\n(max / mean)")
    lower.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    lower.set_xlabel("Step")
    upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, frameon=False, columnspacing=1.4)
    for axis in (upper, lower):
        clean(axis)
        axis.margins(x=0.01)
    page.tight_layout()
    return page


def moved(figure):
    """Bytes that each policy moves a step, and copies in use."""
    curves = figure.honest["curves"]
    page, (upper, lower) = plt.subplots(2, 1, figsize=(6.4, 4.0), sharex=True)
    lines = []
    for i, (system, curve) in enumerate(curves.items()):
        name, colour, dashes = own_look(system, i)
        steps = range(1, len(curve["copies"]) + 1)
        total = [(a + b) / 1e6 for a, b in zip(curve["moved_bytes"], curve["fill_bytes"])]
        if any(total):
            upper.plot(steps, total, color=colour, linewidth=1.1, linestyle=dashes, drawstyle="steps-mid", label=name)
        if any(curve["copies"]):
            lower.plot(steps, curve["copies"], color=colour, linewidth=1.1, linestyle=dashes)
        lines.append(f"{name}: {curve['experts_moved']} homes moved, {curve['late_repairs']} late repairs, step "
                     f"{curve['median_step_ms']:.1f} ms (median), {curve['p99_step_ms']:.1f} ms (99th percentile)")
    upper.set_ylabel("Moved and filled\n/ MB a step")
    lower.set_ylabel("Copies in use,\nall layers")
    lower.set_xlabel("Step")
    if upper.get_legend_handles_labels()[0]:
        upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, frameon=False)
    for axis in (upper, lower):
        axis.set_ylim(bottom=0)
        clean(axis)
    page.tight_layout()
    page.text(0.01, -0.01, "\n".join(lines), ha="left", va="top", fontsize=7, color=GREY, linespacing=1.4)
    return page


def losses(figure):
    """Against the step and against the clock."""
    page, (by_step, by_clock) = plt.subplots(1, 2, figsize=(7.2, 2.8), sharey=True)
    for i, (system, curve) in enumerate(figure.numbers["curves"].items()):
        name, colour, dashes = own_look(system, i)
        smooth = running_median(curve["loss"])
        steps = range(1, len(smooth) + 1)
        for axis, xs in ((by_step, steps), (by_clock, curve["seconds"])):
            axis.plot(xs, curve["loss"], color=colour, linewidth=0.5, alpha=0.25)
            axis.plot(xs, smooth, color=colour, linewidth=1.4, linestyle=dashes, label=name)
    by_step.set_xlabel("Step")
    by_step.set_ylabel("Training loss / nats")
    by_clock.set_xlabel("Wall-clock time of the steps / s")
    handles, names = by_step.get_legend_handles_labels()
    page.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 0.97), ncol=len(names), frameon=False)
    for axis in (by_step, by_clock):
        clean(axis)
        axis.margins(x=0.01)
    page.tight_layout()
    return page


def differences(figure):
    """What a policy does to the loss of a step: nothing, when all is right."""
    page, axis = plt.subplots(figsize=(6.4, 2.6))
    for i, (system, values) in enumerate(figure.honest["differences"].items()):
        name, colour, dashes = own_look(system, i + 1)
        greatest = max(map(abs, values), default=0)
        axis.plot(range(1, len(values) + 1), running_median(values), color=colour, linewidth=1.2, linestyle=dashes,
                  label=f"{name} ({f'at most {greatest:.1e}' if greatest else 'identical'})")
    axis.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    axis.set_xlabel("Step")
    axis.set_ylabel("Loss - static's / nats")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, frameon=False)
    clean(axis)
    page.tight_layout()
    return page


def heat(figure):
    """A strip a layer: experts from bottom to top, steps from left to right."""
    every = figure.numbers["layers"]
    each = -(-len(every) // MAX_LAYERS_SHOWN)
    shown = every[::each]
    experts = figure.numbers["experts"]
    page, axes = plt.subplots(len(shown), 1, figsize=(6.4, 0.5 + len(shown) * max(0.8, min(1.6, 0.05 * experts + 0.6))),
                              sharex=True, squeeze=False, layout="constrained")
    top = max(share for layer in shown for column in layer["share"] for share in column)
    extent = (figure.numbers["first_step"], figure.numbers["last_step"] + 1, -0.5, experts - 0.5)
    for axis, layer in zip((row[0] for row in axes), shown):
        columns = layer["share"]
        picture = axis.imshow([[column[e] for column in columns] for e in range(experts)], origin="lower", aspect="auto",
                              extent=extent, cmap="cividis", vmin=0, vmax=top or 1, interpolation="nearest")
        axis.set_ylabel(f"layer {layer['layer']}\nexpert", fontsize=8)
        axis.set_yticks([0, experts - 1])
    axes[-1][0].set_xlabel("Step")
    bar = page.colorbar(picture, ax=[row[0] for row in axes], pad=0.01, aspect=30)
    bar.set_label(f"Share of the layer's tokens (even: {1 / experts:.3f})")
    bar.ax.axhline(1 / experts, color="white", linewidth=1.2)
    return page
