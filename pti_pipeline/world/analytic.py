"""Reads scene, colour and place from a picture by palette and regions, without any learning.

Independent of the trained reader, so that the two can check each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from skimage.color import rgb2hsv
from skimage.measure import label, regionprops

from pti_pipeline.world.factors import COLORS, HUES, SCENES
from pti_pipeline.world.scenes import DETAILS, GROUND, SKY

FEET = 1.25
"""How far the feet are below the body's center, in half-widths of the body."""
AREA = 4.5
"""Mean area of a figure, in half-widths squared."""
HEAD = 0.4
"""Upper share of a figure's height in which no color is read: hats have colors of their own."""
NEAR = 0.13
"""Largest RGB distance at which a pixel is taken for one of its scene's own colors."""


def read_picture(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Scene and color (indices), and x and y (fractions of the side), of one picture.

    Parameters
    ----------
    pixels : ndarray, shape (S, S, 3), uint8

    Returns
    -------
    dict
        ``scene``, ``color``, ``x``, ``y``; the last three are NaN where no figure is found.
    """
    rgb = pixels.astype(np.float64) / 255
    scene = read_scene(rgb)
    figure = find_figure(rgb, scene)
    if not figure.any():
        return {"scene": scene, "color": np.nan, "x": np.nan, "y": np.nan}
    (region,) = regionprops(figure.astype(np.uint8))
    side = len(rgb)
    bottom = region.bbox[2] / side
    return {
        "scene": scene,
        "color": read_color(rgb[below_head(figure)]),
        "x": (region.centroid[1] + 0.5) / side,
        "y": bottom - FEET * np.sqrt(region.area / AREA) / side,
    }


def read_scene(rgb: NDArray[np.float64]) -> int:
    """Scene whose sky and ground are nearest to the picture's top and bottom edges."""
    edge = max(1, len(rgb) // 12)
    top, bottom = (np.median(part.reshape(-1, 3), 0) for part in (rgb[:edge], rgb[-edge:]))
    off = [np.linalg.norm(SKY[n] - top) + np.linalg.norm(GROUND[n] - bottom) for n in SCENES]
    return int(np.argmin(off))


def find_figure(rgb: NDArray[np.float64], scene: int) -> NDArray[np.bool_]:
    """Largest region whose colors are not the scene's, and what it encloses; (S, S), bool."""
    name = SCENES[scene]
    palette = np.array([SKY[name], GROUND[name], *DETAILS[name]])
    off = np.linalg.norm(rgb[:, :, None] - palette, axis=-1).min(-1)
    regions = label(off > NEAR)
    if not regions.max():
        return np.zeros(off.shape, bool)
    largest = np.bincount(regions.ravel())[1:].argmax() + 1
    found: NDArray[np.bool_] = binary_fill_holes(regions == largest)
    return found


def below_head(figure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lower part of a figure, (S, S), bool: past any hat."""
    rows = np.flatnonzero(figure.any(1))
    part = figure.copy()
    part[: int(rows[0] + HEAD * len(rows))] = False
    return part


def read_color(rgb: NDArray[np.float64]) -> int:
    """Named color of most of the pixels (n, 3)."""
    hue, saturation, value = rgb2hsv(rgb[None])[0].T
    names = list(HUES)
    turns = np.abs((hue[:, None] * 360 - [HUES[n][0] for n in names] + 180) % 360 - 180)
    votes = np.array([COLORS.index(n) for n in names])[turns.argmin(1)]
    pale, dark = saturation < 0.2, value < 0.25
    votes[pale & (value > 0.65)] = COLORS.index("white")  # limbs are a fifth darker than bodies
    votes[dark | (pale & (value > 0.45) & (value < 0.65))] = COLORS.index("black")  # gray outlines
    counted = votes[dark | (value > 0.45)]  # other outlines are dark: 0.35 of their color
    return int(np.bincount(counted, minlength=len(COLORS)).argmax())
