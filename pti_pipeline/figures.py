"""Figures and grids: returned, never written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from skimage.transform import resize
from skimage.util import montage

PANELS = {
    "reconstruction": "reconstruction (appearance)",
    "editability": "editability (of the reference's)",
    "leak": "position leak (AUC, 0.5 = none)",
}
LABELED = 5
"""Points up to which each is labelled on the axis."""

INK, ACCENT, GRID = "#2b2b33", "#d1495b", "#d9d9e0"


def grid(pictures: NDArray[np.uint8], columns: int, side: int = 96) -> NDArray[np.uint8]:
    """Lay pictures (n, H, W, 3) out in rows of ``columns``, small ones enlarged to ``side``.

    Returns
    -------
    ndarray, shape (rows * side, columns * side, 3), uint8
    """
    if pictures.shape[1] < side:
        shape = (len(pictures), side, side, 3)
        pictures = resize(pictures, shape, order=0, preserve_range=True).astype(np.uint8)
    rows = math.ceil(len(pictures) / columns)
    laid: NDArray[np.uint8] = montage(
        pictures, grid_shape=(rows, columns), channel_axis=-1, fill=(255, 255, 255)
    )
    return laid


def sweep_figure(
    title: str, points: Sequence[Mapping[str, float]], chosen: int, reference: str
) -> Figure:
    """Draw reconstruction, editability and leak against the distance travelled.

    Parameters
    ----------
    title : str
    points : sequence of mapping
        With ``distance``, ``lr`` and the keys of :data:`PANELS` (NaN where not measured);
        ``leak_low`` and ``leak_high`` bound the leak.
    chosen : int
        Index of the point that was chosen.
    reference : str
        Name of what editability and leak are measured against.
    """
    order = sorted(range(len(points)), key=lambda i: points[i]["distance"])
    x = [points[i]["distance"] for i in order]
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        y = np.array([points[i][key] for i in order])
        if key == "leak" and np.isfinite(y).any():
            low = [points[i]["leak_low"] for i in order]
            high = [points[i]["leak_high"] for i in order]
            axes.fill_between(x, low, high, color=GRID, linewidth=0)
            axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")
        axes.plot(x, y, color=INK, linewidth=1.4, marker="o", markersize=4)
        at = points[chosen]["distance"]
        axes.axvline(at, color=ACCENT, linewidth=1.0, linestyle="--")
        axes.plot([at], [points[chosen][key]], "o", color=ACCENT, markersize=8)
        axes.set(xscale="log", xlabel="distance travelled (L2)", title=label)
        axes.set_ylim(0.0, 1.1 * max(0.9, np.nanmax(y, initial=0.0)))
        if len(x) <= LABELED:
            rates = [points[i]["lr"] for i in order]
            labels = [f"{d:.2g}\nlr {r:g}" for d, r in zip(x, rates, strict=True)]
            axes.set_xticks(x, labels)
            axes.xaxis.set_minor_locator(NullLocator())
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.grid(color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
    figure.suptitle(
        f"{title} — against the {reference}; chosen: dashed", fontsize=10, x=0.01, ha="left"
    )
    return figure
