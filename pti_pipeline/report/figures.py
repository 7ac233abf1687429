"""The report's figures for a paper, by matplotlib: one function each; returned, never written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pti_pipeline.palette import COLORS, MARKERS
from pti_pipeline.report.numerals import number
from pti_pipeline.report.panels import Panel, gains_panel, stage_panels
from pti_pipeline.report.pictures import rows
from pti_pipeline.report.study import Stage, Study
from pti_pipeline.report.words import NAMES, TITLES, filled

DASHES = ("-", "--", "-.", ":")
INK, SOFT, RULE = "#1d1f24", "#595d66", "#dcdcd6"
"""As on the page, of which they are a part."""
DISTANCE = "distance travelled (L2)"


def inversion_figure(study: Study) -> Figure:
    """Reconstruction, editability, leak and diversity against distance, with the knee."""
    return _panels(stage_panels(study.invert), study.invert)


def tuning_figure(study: Study) -> Figure:
    """Reconstruction, editability, leak and diversity against distance, with the limit."""
    return _panels(stage_panels(study.finetune), study.finetune)


def regularized_figure(study: Study) -> Figure:
    """The same of the tuning's second sweep, with a regularizer."""
    stage = study.regularized
    return _panels(stage_panels(stage), stage) if stage else _empty("there was no second tuning")


def gains_figure(study: Study) -> Figure:
    """Gains of every factor along the tuning that was registered; says so if none was logged."""
    panel = gains_panel(study.final)
    figure = _panels([panel] if panel else [], study.final, "no gains on twins were logged")
    if panel:
        figure.axes[0].set_ylabel("share of the base's loss", fontsize=9)
    return figure


def matrix_figure(study: Study) -> Figure:
    """Last samples of every run: learning rates in order of distance, by prompt."""
    lines = [(stage, run) for stage in study.stages for run in stage.runs if run.samples]
    if not lines:
        return _empty("no sample grids were logged")
    count = len(study.prompts)
    figure = Figure(figsize=(10, 0.5 + 0.82 * len(lines)), dpi=150, layout="constrained")
    table = figure.subplots(len(lines), count, squeeze=False)
    for (stage, run), axes in zip(lines, table, strict=True):
        chosen = run.id == stage.choice
        label = f"{NAMES[stage.key]}, {stage.label(run)}\ndistance {number(run.distance)}"
        label += f"\n{stage.target}" if chosen else ""
        for place, part in zip(axes, rows(run.samples[-1].grid, count), strict=True):
            place.imshow(part)
            place.set(xticks=[], yticks=[])
            place.spines[:].set(visible=chosen, color=INK, linewidth=2)
        weight = "bold" if chosen else "normal"
        axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, weight=weight)
    for place, prompt in zip(table[0], study.prompts, strict=True):
        place.set_title(_plain(filled(study, prompt)), fontsize=9)
    return figure


def _panels(panels: Sequence[Panel], stage: Stage, absent: str = "no run was evaluated") -> Figure:
    if not panels:
        return _empty(f"{TITLES[stage.key]}: {absent}")
    size = (4.2 * len(panels), 3.5) if len(panels) > 1 else (7.5, 4.2)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        x, y = [p.x for p in curve.points], [p.y for p in curve.points]
        color, dashes = COLORS[curve.style], DASHES[curve.style]
        if curve.faint:
            axes.plot(x, y, dashes, color=color, linewidth=0.8, alpha=0.5)
            continue
        low, high = [p.low for p in curve.points], [p.high for p in curve.points]
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
        look = dashes + MARKERS[curve.style]
        axes.plot(x, y, look, color=color, markersize=5, label=curve.label)
    if math.isfinite(panel.level):
        axes.axhline(panel.level, color=SOFT, linewidth=0.8, linestyle=":")
    if math.isfinite(panel.low) and math.isfinite(panel.high):
        axes.axvspan(panel.low, panel.high, color=INK, alpha=0.08, linewidth=0)
    for name, value in panel.marks.items():
        axes.axvline(value, color=INK, linewidth=1, linestyle="--" if name == "chosen" else "-")
    told = [f"{name} {number(value)}" for name, value in panel.marks.items()]
    axes.set_title(", ".join(told), loc="right", fontsize=8, color=INK)
    axes.set(xscale="log", xlim=(panel.x.low, panel.x.high), ylim=(panel.y.low, panel.y.high))
    axes.set_xlabel(DISTANCE, fontsize=9)
    axes.set_xticks(panel.x.ticks, [f"{tick:g}" for tick in panel.x.ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator(panel.y.ticks))
    axes.set_title(panel.title, loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=SOFT)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    names = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(names.values(), names, fontsize=8, frameon=False)


def _empty(text: str) -> Figure:
    figure = Figure(figsize=(7.5, 1.6), dpi=150)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=SOFT)
    return figure


def _plain(text: str) -> str:
    """Keep matplotlib from reading a token's dollar signs as mathematics."""
    return text.replace("$", r"\$")
