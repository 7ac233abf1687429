"""Layouts: where a subject's mask lies in its picture, and what color is around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops

Mask = NDArray[np.bool_]
"""Shape (S, S): True on the subject. All False where none was found."""

FEATURES = ("x", "y", "log area", "cos 2 angle", "sin 2 angle")


def features(mask: Mask) -> NDArray[np.float64]:
    """Describe where a mask lies; the columns are :data:`FEATURES`.

    Returns
    -------
    ndarray, shape (5,)
        Centroid in fractions of the side, logarithm of the share of the picture, and direction
        of the longest axis, doubled so that both of its ends mean the same. NaN where the mask
        is empty.
    """
    if not mask.any():
        return np.full(len(FEATURES), np.nan)
    (region,) = regionprops(mask.astype(np.uint8))
    y, x = (np.array(region.centroid) + 0.5) / mask.shape
    angle = 2 * region.orientation
    return np.array([x, y, np.log(region.area / mask.size), np.cos(angle), np.sin(angle)])


def background(picture: NDArray[np.floating], mask: Mask) -> NDArray[np.float64]:
    """Mean color of a picture (S, S, 3) outside the mask, shape (3,); NaN where it is empty."""
    if not mask.any() or mask.all():
        return np.full(3, np.nan)
    color: NDArray[np.float64] = picture[~mask].mean(0, dtype=np.float64)
    return color


def largest_region(mask: Mask) -> Mask:
    """Keep the largest connected region of a mask."""
    regions = label(mask)
    if not regions.max():
        return mask
    found: Mask = regions == np.bincount(regions.ravel())[1:].argmax() + 1
    return found


def otsu_mask(heat: NDArray[np.floating]) -> Mask:
    """Largest region of a map (S, S) above Otsu's threshold (1979); empty where it is flat."""
    if heat.min() == heat.max():
        return np.zeros(heat.shape, bool)
    return largest_region(heat > threshold_otsu(heat))
