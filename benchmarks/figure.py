"""Figure of how much faster packs are on a GPU, of the rows that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.gpu import PACKS
from benchmarks.gpu_table import measured
from benchmarks.ours import STAGES
from benchmarks.results import Result
from pti_pipeline.palette import COLORS, INK, MARKERS, PALE
from pti_pipeline.studies.claims.drawing import plain

PLACE = Path(__file__).parents[1] / "docs/images/packs-gpu.png"
LINES = {"eager": "--", "CUDA graphs": "-"}
"""How each mode is drawn; compiled packs were not measured at each size."""
FREE = "a pack in the time of one step"


def packs_figure(results: Sequence[Result]) -> Figure | None:
    """Draw how many times as fast packs are as single eager steps; None if a model has no row."""
    found = measured(results)
    if {model for model, *_ in found} != set(PACKS):
        return None
    figure = Figure(figsize=(8.4, 3.6), dpi=150, layout="constrained")
    for axes, model in zip(figure.subplots(1, len(PACKS)), PACKS, strict=True):
        axes.plot(PACKS[model], PACKS[model], ":", color=PALE, linewidth=1, label=FREE)
        for i, stage in enumerate(STAGES):
            for mode, style in LINES.items():
                sizes = [k for k in PACKS[model] if (model, stage, k, mode) in found]
                rows = [found[model, stage, k, mode] for k in sizes]
                axes.errorbar(
                    sizes,
                    [row.ratio for row in rows],
                    [row.spread for row in rows],
                    color=COLORS[i],
                    marker=MARKERS[i],
                    markersize=4,
                    linewidth=1.4,
                    elinewidth=0.8,
                    linestyle=style,
                    label=f"{stage}, {mode}",
                )
        _dress(axes, model)
    axes.legend(loc="lower right", fontsize=7, frameon=False, handlelength=3.5)
    figure.supylabel("times as fast as K single eager steps", fontsize=9, color=INK)
    return figure


def _dress(axes: Axes, model: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks(PACKS[model])
    axes.set_xlabel("experiments in a pack, K", fontsize=9, color=INK)
    plain(axes, model)
