"""How curves of cells are drawn: each thinly, and their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from pti_pipeline.palette import COLORS, MARKERS, RULE

Values = NDArray[np.floating]
Curve = tuple[Values, Values]
"""Places along the axis, and a value at each."""
DISTANCE = "distance travelled (L2)"


def average(axes: Axes, curves: Sequence[Curve], i: int, label: str) -> None:
    """Draw the mean curve over cells, and each thinly."""
    for places, values in curves:
        axes.plot(places, values, color=COLORS[i], linewidth=0.6, alpha=0.35)
    x, y = mean_curve(curves)
    axes.plot(x, y, color=COLORS[i], marker=MARKERS[i], markersize=3.5, linewidth=1.6, label=label)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over cells, logs of places averaged point by point, as far as all go."""
    n = min(len(values) for _, values in curves)
    x = 10 ** np.mean([np.log10(places)[:n] for places, _ in curves], 0)
    return x, np.mean([values[:n] for _, values in curves], 0)


def dress(axes: Axes, label: str, title: str = "", places: str = DISTANCE) -> None:
    """Give axes their scale of places, labels and legend; without a label neither."""
    axes.set(xscale="log", xlabel=places, ylabel=label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    plain(axes, title)
    if label:
        axes.legend(fontsize=7, frameon=False)


def plain(axes: Axes, title: str = "") -> None:
    """Take from axes what says nothing."""
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.grid(color=RULE, linewidth=0.5)
