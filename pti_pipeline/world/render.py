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
    canvas = Canvas(len(factors), size)
    paint_scenes(canvas, factors)
    paint_characters(canvas, factors)
    return (np.clip(canvas.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def masks(factors: Factors, size: int = 48) -> NDArray[np.bool_]:
    """Pixels that show more of the character than of the scene; shape (n, size, size)."""
    behind = [Canvas(len(factors), size) for _ in range(2)]
    for canvas, shade in zip(behind, (0.0, 1.0), strict=True):
        canvas.pixels[:] = shade
        paint_characters(canvas, factors)
    seen_through = (behind[1].pixels - behind[0].pixels).mean(-1)
    hidden: NDArray[np.bool_] = seen_through < 0.5
    return hidden
