"""Figures and grids: returned, never written."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.transform import resize
from skimage.util import montage

from pti_pipeline.palette import INK


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
