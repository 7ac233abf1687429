"""The denoising loss, one number for each row."""

from __future__ import annotations

from torch import Tensor


def denoising_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row (Ho et al. 2020, eq. 14).

    Parameters
    ----------
    prediction, target : Tensor, shape (rows, C, h, w)
        What the denoiser said, and what it should have: noise or velocity.

    Returns
    -------
    Tensor, shape (rows,), float32
        Lower is better. The caller averages, so that experiments never mix.
    """
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
