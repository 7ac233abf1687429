"""Figures of the claims: what each one's cells show, subject by subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pti_pipeline.palette import COLORS, INK, MARKERS
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.comparison_figure import comparison_figure, screen_figure
from pti_pipeline.studies.claims.curves import (
    FACTORS,
    distances,
    ends,
    gain,
    obedience,
)
from pti_pipeline.studies.claims.drawing import average, dress
from pti_pipeline.studies.claims.evidence import Evidence
from pti_pipeline.studies.claims.mechanism import starts, whole
from pti_pipeline.studies.claims.prompts import KINDS


def inversion_figure(evidence: Evidence) -> Figure | None:
    """Gain on twins, and obedience by kind of prompt, against the inversion's distance."""
    cells = evidence.usual("inversion")
    if not cells:
        return None
    figure = Figure(figsize=(9.6, 3.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    ended = [(result, ends(result)) for result in cells.values()]
    last = [(result, [run["probes"][-1] for run in runs]) for result, runs in ended]
    gains = [(distances(rows), gain(result, rows, "appearance")) for result, rows in last]
    average(left, gains, 0, "appearance gain on twins")
    for i, kind in enumerate(KINDS):
        curves = []
        for result, runs in ended:
            usual = obedience(result["reference"]["class"], [kind])
            values = np.array([obedience(run["samples"], [kind]) - usual for run in runs])
            curves.append((distances([run["probes"][-1] for run in runs]), values))
        average(right, curves, i, f"{kind} prompts")
    right.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    dress(left, "gain, share of the base's loss")
    dress(right, "obedience less the class word's")
    return figure


def order_figure(evidence: Evidence) -> Figure | None:
    """Gains of each factor, as shares of their largest, against the tuning's distance."""
    cells = evidence.usual("tuning")
    if not cells:
        return None
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    figure = Figure(figsize=(2.4 * len(subjects) + 0.6, 3.0), dpi=150, layout="constrained")
    for axes, subject in zip(
        np.atleast_1d(figure.subplots(1, len(subjects), sharey=True)), subjects, strict=True
    ):
        for i, factor in enumerate(FACTORS):
            curves = []
            for cell, result in cells.items():
                if cell.subject == subject:
                    rows = result["runs"][0]["probes"]
                    values = gain(result, rows, factor)
                    curves.append((distances(rows), values / values.max()))
            average(axes, curves, i, factor)
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        dress(axes, "gain, share of its largest" if subject == subjects[0] else "", subject)
        axes.set_ylim(-1, 1.1)
    return figure


def mechanism_figure(evidence: Evidence) -> Figure | None:
    """Distance at which appearance and position start, against the number of pictures."""
    sizes = {
        inverted: whole(evidence.of(kind="tuning", seed=0, constant="", inverted=inverted))
        for inverted in (True, False)
    }
    shown = {inverted: cells for inverted, cells in sizes.items() if cells}
    if not shown:
        return None
    figure = Figure(figsize=(4.0 * len(shown) + 0.6, 3.4), dpi=150, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
    for axes, (inverted, cells) in zip(panels, shown.items(), strict=True):
        for i, factor in enumerate(("appearance", "position")):
            _onsets(axes, cells, factor, i)
        dress(axes, "distance at which it starts", "from a pivot" if inverted else "from a word")
        axes.set(xlabel="training pictures", yscale="log")
        axes.xaxis.set_major_locator(LogLocator(base=2))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    return figure


def curve_figure(evidence: Evidence) -> Figure | None:
    """Gains of appearance and position by learning rates, by checkpoints and by scales."""
    swept = {c.subject: r for c, r in evidence.usual("sweep").items()}
    runs = {c.subject: r for c, r in evidence.usual("tuning").items() if c.seed == 0}
    subjects = [subject for subject in runs if subject in swept]
    if not subjects:
        return None
    figure = Figure(figsize=(2.4 * len(subjects) + 0.6, 5.0), dpi=150, layout="constrained")
    grid = figure.subplots(2, len(subjects), squeeze=False)
    for column, subject in enumerate(subjects):
        run = runs[subject]["runs"][0]
        ways = {
            "learning rates": (swept[subject], [r["probes"][-1] for r in ends(swept[subject])]),
            "checkpoints": (runs[subject], run["probes"]),
            "scales of the last": (runs[subject], run["scaled"]),
        }
        for row, factor in enumerate(("appearance", "position")):
            axes = grid[row, column]
            for i, (label, (result, rows)) in enumerate(ways.items()):
                (line,) = axes.plot(distances(rows), gain(result, rows, factor), label=label)
                line.set(color=COLORS[i], marker=MARKERS[i], markersize=3.5)
            title = subject if row == 0 else ""
            dress(axes, f"gain of {factor}" if column == 0 else "", title)
            axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    return figure


def _onsets(axes: Axes, cells: Mapping[Cell, Result], factor: str, i: int) -> None:
    """Draw starts against pictures: thinly of each subject, hollow if never, and their mean."""
    logs: dict[int, list[float]] = {n: [] for n in sorted({cell.pictures for cell in cells})}
    for subject in dict.fromkeys(cell.subject for cell in cells):
        found = starts({c: r for c, r in cells.items() if c.subject == subject}, factor)
        x, y = [start.pictures for start in found], [start.at for start in found]
        axes.plot(x, y, color=COLORS[i], linewidth=0.6, alpha=0.35)
        never = [start for start in found if not start.reached]
        axes.plot(
            [start.pictures for start in never],
            [start.at for start in never],
            "^",
            color=COLORS[i],
            markerfacecolor="white",
            markersize=4,
        )
        for start in found:
            logs[start.pictures].append(float(np.log10(start.at)))
    means = [10 ** np.mean(values) for values in logs.values()]
    (line,) = axes.plot([*logs], means, label=factor)
    line.set(color=COLORS[i], marker=MARKERS[i], markersize=4, linewidth=1.6)


FIGURES: dict[str, Callable[[Evidence], Figure | None]] = {
    "inversion": inversion_figure,
    "order": order_figure,
    "mechanism": mechanism_figure,
    "curve": curve_figure,
    "comparison": comparison_figure,
    "screen": screen_figure,
}
"""By the name of the file."""
