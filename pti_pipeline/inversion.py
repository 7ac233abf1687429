"""Textual inversion (Gal et al. 2022): K pivots on one frozen base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pti_pipeline import distance
from pti_pipeline.batches import Material, draw_batch
from pti_pipeline.families.base import BaseModel
from pti_pipeline.losses import pack_losses
from pti_pipeline.pivot import attached
from pti_pipeline.settings import InvertSettings
from pti_pipeline.training import Losses, bounds, optimise, rates

FAR = 20.0
"""Norm of a learned vector, in medians of the vocabulary's, at which it has diverged."""


@dataclass(frozen=True)
class Moment:
    """Where K experiments stand after a step.

    Attributes
    ----------
    step : int
    metrics : dict of str to Tensor, each of shape (K,)
        By their logged names; on the device.
    derived : dict of str to Tensor, each of shape (K,)
        What follows from ``metrics`` and the settings, and so need not be kept at every step.
    alive, going : Tensor of bool, shape (K,)
        ``alive`` is False once an experiment has diverged and is frozen, ``going`` also once it
        was stopped.
    """

    step: int
    metrics: dict[str, Tensor]
    derived: dict[str, Tensor]
    alive: Tensor
    going: Tensor


def token_losses(
    base: BaseModel, material: Material, vectors: Tensor, seeds: Sequence[int], size: int, step: int
) -> Losses:
    """Denoising losses at one step of K experiments whose tokens read as ``vectors`` (K, n, H)."""
    batch = draw_batch(material, seeds, size, base.timesteps, step)
    with attached(base.text_encoder, vectors):
        condition = base.condition(material.ids[batch.prompts])
    noisy = base.add_noise(batch.latents, batch.noise, batch.timesteps)
    prediction = base.predict(noisy, batch.timesteps, condition)
    target = base.target(batch.latents, batch.noise, batch.timesteps)
    return Losses.plain(*pack_losses(prediction, target, len(seeds)))


def invert(
    base: BaseModel,
    material: Material,
    vectors: Tensor,
    experiments: Sequence[InvertSettings],
    stop: Tensor | None = None,
) -> Iterator[Moment]:
    """Learn the placeholder's vectors; nothing else of the base changes.

    Parameters
    ----------
    base : BaseModel
    material : Material
        The subject, encoded with the placeholder's tokens.
    vectors : Tensor, shape (K, n, H), float32
        Start of each experiment; updated in place.
    experiments : sequence of InvertSettings, length K
        May differ in learning rate, clipping, seed and bound on the distance.
    stop : Tensor of bool, shape (K,), optional
        See :func:`pti_pipeline.training.optimise`.

    Yields
    ------
    Moment
        After each optimizer update.
    """
    first, seeds = experiments[0], [e.seed for e in experiments]
    start, table = vectors.clone(), base.vocabulary()

    def loss(step: int, part: slice) -> Losses:
        return token_losses(base, material, vectors[part], seeds[part], first.batch_size, step)

    bound, project = bounds(experiments, vectors), first.at_distance == "project"
    stop = torch.zeros_like(bound, dtype=torch.bool) if stop is None else stop

    @torch.no_grad()
    def settle() -> Tensor:
        if project:
            share = (bound / distance.delta_norm(vectors, start)).to(vectors.dtype)[:, None, None]
            vectors.copy_(torch.where(share < 1, start + share * (vectors - start), vectors))
        return distance.norm_ratio(vectors, table) <= FAR

    steps = max(e.steps for e in experiments)
    lr, clip = rates(experiments, vectors)
    path = nominal = torch.zeros(len(experiments), dtype=torch.float64, device=vectors.device)
    before = start
    for record in optimise([vectors], loss, lr, steps, clip, settle, stop):
        now = vectors.detach()
        path, nominal = path + distance.delta_norm(now, before), nominal + record.lr
        travelled, before = distance.delta_norm(now, start), now.clone()
        if not project:
            stop |= travelled >= bound
        metrics = {"train/loss": record.loss, **distance.report(travelled, path, nominal)}
        metrics["distance/angle"] = distance.angle(now, start)
        metrics["distance/norm_ratio"] = distance.norm_ratio(now, table)
        derived = distance.derived(travelled, path, nominal, now[0].numel())
        derived["train/lr"] = record.lr
        yield Moment(record.step, metrics, derived, record.alive, record.going)
