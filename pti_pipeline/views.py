"""What a training sees of a subject: which parts of its pictures count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.data import Subject
from pti_pipeline.errors import DataError
from pti_pipeline.folder import MASK
from pti_pipeline.objective import Objective


def check(subject: Subject, objective: Objective) -> None:
    """Raise ``DataError`` if the objective asks for masks where there are none."""
    if objective.background < 1 and all(mask is None for mask in subject.masks):
        what = f"background is {objective.background:g}, but no picture has a mask"
        hint = f"put <name>{MASK} beside pictures, white on the subject, or cut the subject out"
        raise DataError("E311", what, hint)


def area_weights(
    masks: Sequence[NDArray[np.bool_] | None], shape: Sequence[int], background: float
) -> Tensor:
    """Weights of the loss at each place of the latents.

    Parameters
    ----------
    masks : sequence of (ndarray or None), length N
        Where the subject is, (S, S); a picture without one counts whole.
    shape : sequence of int
        Rows and columns of the latents; a mask is averaged over what each stands for.
    background : float
        Weight outside the mask, beside 1 within.

    Returns
    -------
    Tensor, shape (N, 1, h, w), float32
        Of mean 1 for each picture, so that losses, and learning rates, stay comparable.
    """
    parts = [
        torch.ones(1, 1, *shape)
        if mask is None
        else F.interpolate(torch.from_numpy(mask)[None, None].float(), shape, mode="area")
        for mask in masks
    ]
    weights = background + (1 - background) * torch.cat(parts)
    return weights / weights.mean((-2, -1), keepdim=True)
