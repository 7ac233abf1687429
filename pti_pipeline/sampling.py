"""Pictures at fixed seeds: the sampler's loop, for K experiments in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.families.base import BaseModel


@torch.no_grad()
def sample(
    base: BaseModel,
    condition: Tensor,
    negative: Tensor,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """Draw pictures with classifier-free guidance (Ho & Salimans 2022).

    Parameters
    ----------
    base : BaseModel
        With what is to be drawn attached to its denoiser.
    condition : Tensor, shape (K, n, L, H)
        Of K experiments' ``n`` prompts each.
    negative : Tensor, shape (L, H) or (K, 1, L, H)
        Of the empty prompt, to all experiments or to each.
    seeds : sequence of int, of length n
        Of the starting noise; the same for every experiment.
    steps : int
        Of the base's own scheduler.
    guidance : float
        Scale; 1 is none.
    shape : sequence of int, optional
        Rows and columns of the latents; those of the base's own square by default.

    Returns
    -------
    Tensor, shape (K, n, 3, H, W), float32 in [-1, 1]
    """
    experiments, n = condition.shape[:2]
    start = base.start_latents(seeds, shape)
    sampler = base.sampler(steps)
    latents = (start * sampler.init_noise_sigma).repeat(experiments, 1, 1, 1)
    both = torch.stack([negative.expand_as(condition), condition], 1).flatten(0, 2)
    for timestep in sampler.timesteps:
        # rows: experiment, then without and with the prompt, then picture
        rows = latents.unflatten(0, (experiments, 1, n)).expand(-1, 2, -1, -1, -1, -1)
        scaled = sampler.scale_model_input(rows.flatten(0, 2), timestep)
        times = timestep.expand(len(scaled)).to(scaled.device)
        answer = base.predict(scaled, times, both).unflatten(0, (experiments, 2, n))
        without, with_prompt = answer[:, 0], answer[:, 1]
        guided = without + guidance * (with_prompt - without)
        latents = sampler.step(guided.flatten(0, 1), timestep, latents).prev_sample
    images = torch.cat([base.decode(part) for part in latents.split(64)])
    return images.unflatten(0, (experiments, n))


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Turn (..., 3, S, S) in [-1, 1] into (..., S, S, 3) uint8, rounded as diffusers does."""
    pixels = (images / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.movedim(-3, -1).cpu().numpy()
