"""Reconstruction and diversity: arrays in, a number out; directions in each docstring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Pictures = NDArray[np.floating]
"""Shape (n, H, W, 3), float in [0, 1]."""


Masks = NDArray[np.bool_]
"""Shape (n, H, W): True on the subject."""


def ssim(pictures: Pictures, references: Pictures, masks: Masks | None = None) -> float:
    """Mean structural similarity (Wang et al. 2004), -1 to 1, higher is better.

    The window is scikit-image's default of 7 pixels. With masks, the mean over the pixels at whose
    center the subject is; pictures with an empty mask are left out (NaN if all are).
    """
    values = []
    for i, (reference, picture) in enumerate(zip(references, pictures, strict=True)):
        mean, local = structural_similarity(
            reference, picture, data_range=1.0, channel_axis=-1, full=True
        )
        if masks is None or masks[i].any():
            values.append(mean if masks is None else local[masks[i]].mean())
    return float(np.mean(values)) if values else np.nan


def psnr(pictures: Pictures, references: Pictures, masks: Masks | None = None) -> float:
    """Mean peak signal-to-noise ratio in dB, higher is better; equal pictures count as 100 dB.

    With masks, over the subject's pixels only; pictures with an empty mask are left out (NaN if
    all are).
    """
    values = []
    for i, (reference, picture) in enumerate(zip(references, pictures, strict=True)):
        if masks is not None:
            reference, picture = reference[masks[i]], picture[masks[i]]
        if np.array_equal(reference, picture):
            values += [100.0] if reference.size else []
        else:
            values.append(peak_signal_noise_ratio(reference, picture, data_range=1.0))
    return float(np.mean(values)) if values else np.nan


def relative_gain(loss: float, reference: float) -> float:
    """Share by which ``loss`` is below ``reference``; higher is better, 0 at the reference."""
    return (reference - loss) / reference


def position_diversity(positions: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Spread of positions over that of the base model: 1 as random, 0 all alike.

    Parameters
    ----------
    positions, reference : ndarray, shape (n, 2)
        Centers in fractions of the side.

    Notes
    -----
    The ratio of the determinants of the two covariance matrices.
    """
    return float(np.linalg.det(np.cov(positions.T)) / np.linalg.det(np.cov(reference.T)))


def oftener(own: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """One-sided p-value against "no oftener than the other", of pairs drawn with equal seeds.

    The exact test of McNemar (1947): among the pairs that differ, either side is as likely.

    Examples
    --------
    >>> import numpy as np
    >>> oftener(np.array([True] * 5), np.array([False] * 5))
    0.03125
    """
    more, less = int((own & ~other).sum()), int((other & ~own).sum())
    if more + less == 0:
        return 1.0
    return float(binomtest(more, more + less, 0.5, alternative="greater").pvalue)
