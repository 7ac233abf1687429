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


def sheet(rows: Mapping[str, NDArray[np.uint8]], blocks: Mapping[str, int]) -> Figure:
    """Draw labelled rows of pictures, in blocks of columns with a heading each.

    Parameters
    ----------
    rows : mapping of str to ndarray, each (n, H, W, 3), uint8
        By label.
    blocks : mapping of str to int
        Heading and number of columns of each block; the numbers add up to n.
    """
    margin, top, gap, inch = 1.5, 0.5, 0.25, 0.6  # the first three in columns
    counts = list(blocks.values())
    starts = [sum(counts[:i]) + gap * i for i in range(len(counts))]
    left = [start + i for start, n in zip(starts, counts, strict=True) for i in range(n)]
    size = margin + left[-1] + 1, top + len(rows)
    figure = Figure(figsize=(inch * size[0], inch * size[1]), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    for row, (label, pictures) in enumerate(rows.items()):
        axes.text(-0.15, row + 0.5, label, ha="right", va="center", color=INK, fontsize=9)
        for x, picture in zip(left, pictures, strict=True):
            axes.imshow(picture, extent=(x, x + 0.97, row + 0.97, row))
    for heading, start in zip(blocks, starts, strict=True):
        axes.text(start, -0.12, heading, color=INK, fontsize=9)
    axes.set(xlim=(-margin, size[0] - margin), ylim=(len(rows), -top))
    axes.axis("off")
    return figure


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
            labels = [f"{d:.3g}\nlr {r:g}" for d, r in zip(x, rates, strict=True)]
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
