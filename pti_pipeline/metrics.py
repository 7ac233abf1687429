"""Reconstruction and diversity: arrays in, a number out; directions in each docstring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Pictures = NDArray[np.floating]
"""Shape (n, H, W, 3), float in [0, 1]."""


def ssim(pictures: Pictures, references: Pictures) -> float:
    """Mean structural similarity (Wang et al. 2004), -1 to 1, higher is better.

    The window is scikit-image's default of 7 pixels.
    """
    pairs = zip(references, pictures, strict=True)
    return float(
        np.mean([structural_similarity(r, p, data_range=1.0, channel_axis=-1) for r, p in pairs])
    )


def psnr(pictures: Pictures, references: Pictures) -> float:
    """Mean peak signal-to-noise ratio in dB, higher is better; equal pictures count as 100 dB."""
    values = [
        100.0 if np.array_equal(r, p) else peak_signal_noise_ratio(r, p, data_range=1.0)
        for r, p in zip(references, pictures, strict=True)
    ]
    return float(np.mean(values))


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
