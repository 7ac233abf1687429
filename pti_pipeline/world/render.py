"""Factors to pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pti_pipeline.world.characters import paint_characters
from pti_pipeline.world.factors import Factors
from pti_pipeline.world.scenes import paint_scenes
from pti_pipeline.world.shapes import Canvas


def render(factors: Factors, size: int = 48) -> NDArray[np.uint8]:
    """Draw pictures.

    Parameters
    ----------
    factors : Factors
        Of ``n`` pictures.
    size : int
        Side in pixels.

    Returns
    -------
    ndarray, shape (n, size, size, 3), uint8
    """
    return render_with_masks(factors, size)[0]


def masks(factors: Factors, size: int = 48) -> NDArray[np.bool_]:
    """Pixels that show more of the character than of the scene; shape (n, size, size)."""
    canvas = Canvas(len(factors), size)
    paint_characters(canvas, factors)
    return canvas.covered > 0.5


def render_with_masks(
    factors: Factors, size: int = 48
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Both of the above at the price of one."""
    canvas = Canvas(len(factors), size)
    paint_scenes(canvas, factors)
    canvas.covered[:] = 0
    paint_characters(canvas, factors)
    return (np.clip(canvas.pixels, 0, 1) * 255 + 0.5).astype(np.uint8), canvas.covered > 0.5
