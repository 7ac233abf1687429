"""Anti-aliased shapes: signed distances over a batch of pictures, and the canvas they paint on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.floating]
"""Signed distance at every pixel, shape (n or 1, S, S), in fractions of the side; inside < 0."""

Length = float | Field
"""One for all pictures, or one each, shape (n, 1, 1)."""


class Canvas:
    """``n`` square pictures of side ``size``, painted together.

    Attributes
    ----------
    x, y : ndarray, shape (1, size, size), float32
        Pixel centers, in fractions of the side, from the top left.
    pixels : ndarray, shape (n, size, size, 3), float32 in [0, 1]
    covered : ndarray, shape (n, size, size), float32 in [0, 1]
        How much of a pixel has been painted over.
    """

    def __init__(self, n: int, size: int) -> None:
        centers = (np.arange(size, dtype=np.float32) + 0.5) / size
        x, y = np.meshgrid(centers, centers)
        self.x, self.y, self.size = x[None], y[None], size
        self.pixels = np.zeros((n, size, size, 3), np.float32)
        self.covered = np.zeros((n, size, size), np.float32)

    def paint(self, field: Field, color: ArrayLike, where: ArrayLike | None = None) -> None:
        """Paint the inside of ``field`` in ``color`` ((3,) or (n, 3)), in pictures ``where``."""
        alpha = np.clip(0.5 - field * self.size, 0, 1).astype(np.float32)
        if where is not None:
            alpha = alpha * per_picture(where)
        paint = np.atleast_2d(np.asarray(color, np.float32))[:, None, None, :]
        self.pixels += (paint - self.pixels) * alpha[..., None]
        self.covered += (1 - self.covered) * alpha


def per_picture(values: ArrayLike) -> NDArray[np.float32]:
    """Shape (n,) to (n, 1, 1), so that it broadcasts over pixels."""
    return np.asarray(values, np.float32)[:, None, None]


def box(
    x: Field,
    y: Field,
    cx: Length,
    cy: Length,
    half_width: Length,
    half_height: Length,
    radius: float = 0.0,
) -> Field:
    """Axis-aligned rectangle with rounded corners."""
    qx, qy = np.abs(x - cx) - half_width + radius, np.abs(y - cy) - half_height + radius
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0) - radius


def ellipse(x: Field, y: Field, cx: Length, cy: Length, rx: Length, ry: Length) -> Field:
    """Ellipse; the distance is approximate away from the outline."""
    return (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * np.minimum(rx, ry)


def triangle(
    x: Field, y: Field, cx: Length, base: Length, height: Length, half_width: Length
) -> Field:
    """Isosceles triangle standing on ``y = base``, its tip ``height`` above."""
    side = np.abs(x - cx) * height - (y - (base - height)) * half_width
    return np.maximum(y - base, side / np.hypot(height, half_width))


def segment(
    x: Field, y: Field, ax: Length, ay: Length, bx: Length, by: Length, radius: float
) -> Field:
    """Round-ended stroke from (ax, ay) to (bx, by)."""
    dx, dy = bx - ax, by - ay
    t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - ax - t * dx, y - ay - t * dy) - radius
