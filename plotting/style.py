"""Colours, hatches, names and the saving of pictures, the same in every figure."""

import os

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first)
from matplotlib.backends.backend_pdf import PdfPages  # noqa: E402

# The paper's look: solid bars with black edges, its own system hatched.
PAPER = {
    "fastmoe": ("FastMoE", "#f4a261", ""),
    "deepspeed": ("DeepSpeed", "#7fb069", ""),
    "fastermoe": ("FasterMoE", "#f6d55c", ""),
    "smartmoe": ("SmartMoE", "#a8d8f0", "xx"),
    "tutel": ("Tutel", "#7fb069", ""),
    "alpa": ("Alpa", "#7fb069", ""),
}
TEAL, GREEN, LIGHT_BLUE, RED = "#1b9e9e", "#2e8b3a", "#6bb7e0", "#d62728"

# Our own figures: Okabe and Ito's colours, told apart by every kind of colour vision, and a dash pattern each.
OWN = {
    "static": ("static", "#444444", (0, ())),
    "smartmoe": ("SmartMoE", "#0072B2", (0, (5, 1.5))),
    "eplb": ("EPLB", "#E69F00", (0, (3, 1, 1, 1))),
    "fastermoe": ("FasterMoE", "#CC79A7", (0, (1, 1))),
    "ballast": ("Ballast", "#D55E00", (0, ())),
    "uniform": ("uniform routing", "#009E73", (0, (1, 1.2))),
    "planned": ("planned once", "#56B4E9", (0, (7, 2))),
}
_OTHERS = ["#56B4E9", "#CC79A7", "#F0E442", "#666666"]

GREY = "#666666"

plt.rcParams.update({
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.linewidth": 0.8,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": True,
    "legend.framealpha": 1.0,
    "legend.edgecolor": "0.7",
    "legend.borderpad": 0.3,
    "legend.handlelength": 1.6,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
})


def own_look(system, order=0):
    """(name, colour, dashes) of a policy; `smartmoe:10` looks like smartmoe and is named "SmartMoE, every 10"."""
    base, _, every = system.partition(":")
    if base in OWN:
        name, colour, dashes = OWN[base]
    else:
        name, colour, dashes = base, _OTHERS[order % len(_OTHERS)], (0, ())
    return (f"{name}, every {every}" if every else name), colour, dashes


def save(outdir, name, pages):
    """`pages` are [(suffix, matplotlib figure)]: one PDF with all of them, one PNG each. Closes them. Returns paths."""
    paths = [os.path.join(outdir, f"{name}.pdf")]
    beside = paths[0] + ".part"
    with PdfPages(beside, metadata={"CreationDate": None, "ModDate": None}) as pdf:
        for suffix, page in pages:
            pdf.savefig(page, bbox_inches="tight", pad_inches=0.04)
            png = os.path.join(outdir, f"{name}{suffix}.png")
            page.savefig(png + ".part", format="png", bbox_inches="tight", pad_inches=0.04)
            os.replace(png + ".part", png)
            paths.append(png)
            plt.close(page)
    os.replace(beside, paths[0])
    return paths


def clean(axis):
    """No frame above and to the right."""
    axis.spines["top"].set_visible(False)
    axis.spines["right"].set_visible(False)
