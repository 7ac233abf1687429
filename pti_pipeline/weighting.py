r"""Weights of the loss by timestep.

A base model mixes latents and noise as :math:`z_t = a x + b \epsilon`, so that the signal's power
over the noise's is :math:`SNR = (a / b)^2`. Its prediction stands for clean latents, and an error
of that is one of the latents times a slope :math:`s`: of noise :math:`b / a`, of velocity
:math:`b`, of a flow :math:`\sigma`. So a weight on the error of the latents is, on that of the
prediction, :math:`s^2` times as much, whatever is predicted.

A new scheme is one function here, one line in :data:`SCHEMES`, and its name in
:data:`pti_pipeline.objective.WEIGHTINGS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pti_pipeline.families.base import BaseModel
from pti_pipeline.objective import Objective

SMALLEST = 1e-6
"""Of the noise's share: without any, SNR would be infinite and its weight not a number."""


def min_snr(snr: Tensor, slope: Tensor, gamma: float) -> Tensor:
    r""":math:`\min(SNR, \gamma) s^2` (min-SNR, Hang et al. 2023).

    Where noise is predicted this is :math:`\min(SNR, \gamma) / SNR`, of velocity
    :math:`\min(SNR, \gamma) / (SNR + 1)`.
    """
    return snr.clamp(max=gamma) * slope.square()


def debiased(snr: Tensor, slope: Tensor, gamma: float) -> Tensor:
    r""":math:`\sqrt{SNR} s^2`, for noise :math:`1 / \sqrt{SNR}` (Yu et al. 2024)."""
    return snr.sqrt() * slope.square()


SCHEMES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "min-snr": min_snr,
    "debiased": debiased,
}
"""By the name that users write, beside ``none``: of signal over noise, slope and gamma."""


def row_weights(base: BaseModel, timesteps: Tensor, objective: Objective) -> Tensor:
    """Weights (rows,) of the squared errors of predictions at ``timesteps`` (rows,); 1 of none."""
    if objective.weighting == "none":
        return torch.ones(len(timesteps), device=timesteps.device)
    one = torch.ones(len(timesteps), 1, 1, 1, device=timesteps.device)
    zero = torch.zeros_like(one)
    signal = base.add_noise(one, zero, timesteps)
    spread = base.add_noise(zero, one, timesteps).clamp(min=SMALLEST)
    slope = base.clean(zero, one, timesteps)
    scheme = SCHEMES[objective.weighting]
    return scheme((signal / spread).square(), slope, objective.min_snr_gamma).flatten()
