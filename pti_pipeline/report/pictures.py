"""Sample grids taken apart, and pictures as text that a page can hold."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from pti_pipeline.report.study import Picture

WIDTH = 384
"""Pixels of a grid on the page, at most: four samples of the embedded world at twice their size."""


def rows(grid: Picture, count: int) -> list[Picture]:
    """Cut a sample grid into its ``count`` rows of equal height; one prompt each."""
    return [np.ascontiguousarray(part) for part in np.array_split(grid, count)]


def block(row: Picture) -> Picture:
    """Lay a row of four square samples out as two rows of two; other rows stay as they are."""
    side, width = row.shape[:2]
    if width != 4 * side:
        return row
    return np.concatenate([row[:, : 2 * side], row[:, 2 * side :]])


def data_uri(picture: Picture, width: int = WIDTH) -> str:
    """Encode a picture as WebP, made smaller if it is wider than ``width``."""
    image = Image.fromarray(picture)
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
