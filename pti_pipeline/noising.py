"""What a training step asks of the denoiser: the subject's pictures noised, and their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pti_pipeline.batches import Material, draw_batch
from pti_pipeline.families.base import BaseModel
from pti_pipeline.objective import PLAIN, Objective
from pti_pipeline.weighting import row_weights


@dataclass(frozen=True)
class Noised:
    """Rows of K experiments, experiment-major.

    Attributes
    ----------
    noisy, target : Tensor, shape (rows, C, h, w)
        Noisy latents, and what the denoiser should predict.
    timesteps : Tensor, shape (rows,)
        As the base model's schedule has them.
    prompts : Tensor, shape (rows,), int64
        Rows of :attr:`pti_pipeline.batches.Material.ids`.
    weights : Tensor, shape (rows,)
        Of each row's loss.
    area : Tensor, shape (rows, 1, h, w) or (rows, 1, 1, 1)
        Weights of the loss at each place.
    """

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    prompts: Tensor
    weights: Tensor
    area: Tensor


def noised(
    base: BaseModel,
    material: Material,
    seeds: Sequence[int],
    size: int,
    step: int,
    rows: slice,
    objective: Objective = PLAIN,
) -> Noised:
    """Noise one step's batches; see :func:`pti_pipeline.batches.draw_batch`."""
    batch = draw_batch(material, seeds, size, base.timesteps, step, rows, objective)
    times = base.drawn(batch.timesteps)
    noisy = base.add_noise(batch.latents, batch.noise, times)
    target = base.target(batch.latents, batch.noise, times)
    weights = row_weights(base, times, objective).to(noisy.dtype)
    return Noised(noisy, target, times, batch.prompts, weights, batch.area)
