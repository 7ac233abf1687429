"""Figure of the regularizers' comparison: the arms, and the weights that were tried of each."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pti_pipeline import leak
from pti_pipeline.palette import COLORS, INK, MARKERS, PALE
from pti_pipeline.studies.claims.arms import ARMS, CONTROLS
from pti_pipeline.studies.claims.comparison_grid import Best, chosen, finals, screen
from pti_pipeline.studies.claims.drawing import average, dress, mean_curve, plain
from pti_pipeline.studies.claims.evidence import Evidence
from pti_pipeline.studies.claims.limits import Swept, limit_of, swept_of


def comparison_figure(evidence: Evidence) -> Figure | None:
    """Leak, appearance and editability by learning rate, of the finals' arms; and the screen.

    Curves are of the finals once these are whole, with their controls dashed; before that of the
    screen, and None before it is.
    """
    if (best := chosen(evidence.cells)) is None:
        return None
    wanted = {cell for cell in finals(best) if cell.arm}
    if any(cell not in evidence.cells for cell in wanted):
        wanted = {cell for cell in screen() if best.get(cell.arm) == cell.weight}
    runs: dict[str, list[Swept]] = {}
    for cell in sorted(wanted, key=lambda cell: cell.name):
        runs.setdefault(cell.arm, []).append(swept_of(cell, evidence.cells[cell]))
    figure = Figure(figsize=(9.6, 6.4), dpi=150, layout="constrained")
    leaks, shown, obeyed, worth = figure.subplots(2, 2).flat
    values = {"leak": leaks, "appearance": shown, "editability": obeyed}
    for i, arm in enumerate(best):
        label = arm if len(ARMS[arm].weights) == 1 else f"{arm}, weight {best[arm]:g}"
        for name, axes in values.items():
            average(axes, [(s.lr, getattr(s, name)) for s in runs[arm]], i, label)
    for arm in (name for name in CONTROLS if name in runs):
        for name, axes in values.items():
            curve = mean_curve([(s.lr, getattr(s, name)) for s in runs[arm]])
            axes.plot(*curve, color=INK, linestyle="--", linewidth=1.2, label=arm)
    leaks.axhline(leak.MARGIN, color=INK, linewidth=0.8, linestyle=":", label="bound of the limit")
    dress(leaks, "leak, AUC against the pivot", places="learning rate")
    for axes, label in ((shown, "appearance"), (obeyed, "editability")):
        dress(axes, "", places="learning rate")
        axes.set_ylabel(f"{label}, share")
    _screen(worth, evidence, best)
    return figure


def _screen(axes: Axes, evidence: Evidence, best: Best) -> None:
    """Draw hypervolumes of all arms and weights, each subject's, and their means."""
    rows = [(arm, weight) for arm, how in ARMS.items() for weight in how.weights]
    for row, (arm, weight) in enumerate(rows):
        cells = [c for c in screen() if (c.arm, c.weight) == (arm, weight)]
        values = [limit_of(c, evidence.cells[c]).hypervolume for c in cells]
        taken = best.get(arm) == weight
        i = [*best].index(arm) if taken else 0
        color = COLORS[i] if taken else PALE
        axes.plot(values, [row] * len(values), ".", color=color, markersize=4)
        axes.plot(np.mean(values), row, MARKERS[i] if taken else "o", color=color, markersize=6)
    names = [arm if len(ARMS[arm].weights) == 1 else f"{arm} {weight:g}" for arm, weight in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlabel("hypervolume in the screen: two subjects, and their mean")
    plain(axes)
