"""The denoising loss, one number for each row, and what float16 needs it multiplied by."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAFE = 256
"""Numbers of a batch over which a mean loss has gradients that float16 can hold."""


def denoising_loss(prediction: Tensor, target: Tensor, area: Tensor | None = None) -> Tensor:
    """Mean squared error of each row (Ho et al. 2020, eq. 14).

    Parameters
    ----------
    prediction, target : Tensor, shape (rows, C, h, w)
        What the denoiser said, and what it should have: noise or velocity.
    area : Tensor, shape (rows, 1, h, w) or (rows, 1, 1, 1), optional
        Weights at each place, of mean 1.

    Returns
    -------
    Tensor, shape (rows,), float32 (float64 if that was given)
        Lower is better. The caller averages, so that experiments never mix.
    """
    squares = (wide(prediction) - wide(target)).square()
    return (squares if area is None else squares * area).flatten(1).mean(1)


def masked_loss(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of each row over part of its latents.

    Parameters
    ----------
    prediction, target : Tensor, shape (..., N, C, h, w)
    weights : Tensor, shape (N, 1, h, w)
        From 0 (left out) to 1.

    Returns
    -------
    Tensor, shape (..., N)
        0 where the weights are all 0.
    """
    squares = (wide(prediction) - wide(target)).square().mean(-3)
    part = weights[:, 0]
    return (squares * part).sum((-2, -1)) / part.sum((-2, -1)).clamp(min=1e-6)


def pack_losses(
    prediction: Tensor,
    target: Tensor,
    area: Tensor,
    weights: Tensor,
    experiments: int,
    size: int,
) -> tuple[Tensor, Tensor]:
    """Loss of each of K experiments, and what it would be if they predicted nothing; both (K,).

    Rows are experiment-major, with ``weights`` (rows,), and ``area`` as in
    :func:`denoising_loss`. Each counts as one of ``size``: of a whole
    batch these are means.
    """
    nothing = denoising_loss(torch.zeros_like(target), target, area) * weights
    losses = denoising_loss(prediction, target, area) * weights
    losses, nothing = (each.unflatten(0, (experiments, -1)) for each in (losses, nothing))
    return losses.sum(1) / size, nothing.sum(1) / size


def scale_of(dtype: torch.dtype, latents: int) -> float:
    """What a base of ``dtype`` wants losses multiplied by, over ``latents`` numbers of a batch.

    A loss is a mean, so the gradient of each prediction is some 1 / ``latents``: in float16 that
    is rounded to few digits, and in the layers before to zero. A scale that depends on nothing
    else keeps experiments apart and lets a training go on as it was; as a power of two it rounds
    nothing.

    Parameters
    ----------
    dtype : torch.dtype
    latents : int
        All numbers of one experiment's batch.

    Returns
    -------
    float
        A power of two; 1 for other types, whose exponents reach far enough.

    Examples
    --------
    >>> scale_of(torch.float16, 4 * 4 * 128 * 128), scale_of(torch.bfloat16, 4 * 4 * 128 * 128)
    (1024.0, 1.0)
    """
    if dtype != torch.float16:
        return 1.0
    return 2.0 ** max(0, math.floor(math.log2(latents / SAFE)))


def wide(tensor: Tensor) -> Tensor:
    """In float32, or wider if it was given so."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
