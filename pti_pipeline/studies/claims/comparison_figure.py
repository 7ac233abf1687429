"""Figures of the regularizers' comparison: arms in the finals, and weights in the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pti_pipeline import leak
from pti_pipeline.inference import Estimate
from pti_pipeline.palette import COLORS, INK, MARKERS, PALE
from pti_pipeline.studies.claims.arms import ARMS, CONTROLS
from pti_pipeline.studies.claims.comparison_grid import chosen, screen
from pti_pipeline.studies.claims.drawing import Values, dress, mean_curve, plain
from pti_pipeline.studies.claims.evidence import Evidence
from pti_pipeline.studies.claims.limits import Swept, limit_of, swept_of
from pti_pipeline.studies.claims.locality import DECISIVE, Compared, compared

LEAK = "leak, AUC against the pivot"


@dataclass(frozen=True)
class Look:
    """How an arm is drawn, and what it is called."""

    label: str
    color: str
    marker: str
    line: str


def comparison_figure(evidence: Evidence) -> Figure | None:
    """Curves of the finals' arms, and what each one gains over none; None before they are whole.

    Above, means over all sweeps: the leak by learning rate, appearance and editability against the
    leak. Below, at the limits, with 95 % intervals.
    """
    if (sweeps := compared(evidence)) is None:
        return None
    runs: dict[str, list[Swept]] = {}
    for cell, result in sweeps.cells.items():
        runs.setdefault(cell.arm, []).append(swept_of(cell, result))
    looks = _looks(sweeps.weights)
    figure = Figure(figsize=(11, 6.2), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 3)
    _curves([*above], runs, looks)
    _gains([*below], sweeps, looks)
    return figure


def screen_figure(evidence: Evidence) -> Figure | None:
    """Hypervolumes of all arms and weights, each subject's, and their means."""
    if (best := chosen(evidence.cells)) is None:
        return None
    looks, figure = _looks(best), Figure(figsize=(6.4, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    rows = [(arm, weight) for arm, how in ARMS.items() for weight in how.weights]
    for row, (arm, weight) in enumerate(rows):
        cells = [c for c in screen() if (c.arm, c.weight) == (arm, weight)]
        values = [limit_of(c, evidence.cells[c]).hypervolume for c in cells]
        taken = best.get(arm) == weight
        color, marker = (looks[arm].color, looks[arm].marker) if taken else (PALE, "o")
        axes.plot(values, [row] * len(values), ".", color=color, markersize=4)
        axes.plot(np.mean(values), row, marker, color=color, markersize=6)
    axes.set_yticks(range(len(rows)), [_label(arm, weight) for arm, weight in rows])
    axes.invert_yaxis()
    axes.set_xlabel("hypervolume: two subjects, and their mean (in color: taken)")
    plain(axes)
    return figure


def _looks(weights: Mapping[str, float]) -> dict[str, Look]:
    """Arms in colors, controls dashed."""
    arms = [name for name in weights if name not in CONTROLS]
    looks = {
        name: Look(_label(name, weights[name]), COLORS[i], MARKERS[i], "-")
        for i, name in enumerate(arms)
    }
    return looks | {n: Look(n, INK, "x", "--") for n in weights if n in CONTROLS}


def _label(arm: str, weight: float) -> str:
    return f"{arm} {weight:g}" if len(ARMS[arm].weights) > 1 else arm


def _curves(
    panels: Sequence[Axes], runs: Mapping[str, list[Swept]], looks: Mapping[str, Look]
) -> None:
    """Draw means of an arm's sweeps at each learning rate."""
    leaks, shown, obeyed = panels
    for arm, look in looks.items():
        rates, aucs = mean_curve([(s.lr, s.leak) for s in runs[arm]])
        _curve(leaks, rates, aucs, look)
        for name, axes in {"appearance": shown, "editability": obeyed}.items():
            _, values = mean_curve([(s.lr, getattr(s, name)) for s in runs[arm]])
            _curve(axes, aucs, values, look)
            axes.set(xlabel=LEAK, ylabel=f"{name}, share")
    leaks.axhline(leak.MARGIN, color=INK, linewidth=0.8, linestyle=":", label="bound of the limit")
    dress(leaks, LEAK, places="learning rate")
    for axes in (shown, obeyed):
        axes.axvline(leak.MARGIN, color=INK, linewidth=0.8, linestyle=":")
        plain(axes)


def _curve(axes: Axes, x: Values, y: Values, look: Look) -> None:
    axes.plot(x, y, look.line, color=look.color, marker=look.marker, markersize=4, label=look.label)


def _gains(panels: Sequence[Axes], sweeps: Compared, looks: Mapping[str, Look]) -> None:
    """Draw what each arm has over none at its limit."""
    farther, better, worth = panels
    arms = [name for name in looks if name != "none"]
    _intervals(farther, {n: sweeps.farther(n, "none") for n in arms}, looks)
    farther.set(xscale="log", xlabel="learning rate, over that of none")
    farther.set_xticks([1, DECISIVE, 4], ["1", f"{DECISIVE:g}", "4"])
    farther.set_xticks([], minor=True)
    farther.axvline(1, color=INK, linewidth=0.8)
    farther.axvline(DECISIVE, color=INK, linewidth=0.8, linestyle=":")
    for axes, value in ((better, "appearance"), (worth, "hypervolume")):
        _intervals(axes, {n: sweeps.less(n, "none", value) for n in arms}, looks)
        axes.set(xlabel=f"{value}, less that of none")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.tick_params(labelleft=False)


def _intervals(axes: Axes, estimates: Mapping[str, Estimate], looks: Mapping[str, Look]) -> None:
    for row, (name, e) in enumerate(estimates.items()):
        look = looks[name]
        axes.plot([e.low, e.high], [row, row], look.line, color=look.color, linewidth=1.6)
        axes.plot(e.value, row, look.marker, color=look.color, markersize=6)
    axes.set_yticks(range(len(estimates)), [looks[name].label for name in estimates])
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    plain(axes)
