"""Textual inversion (Gal et al. 2022): K pivots on one frozen base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pti_pipeline import distance, norms
from pti_pipeline.batches import Material
from pti_pipeline.families.base import BaseModel
from pti_pipeline.families.recomputing import recomputed
from pti_pipeline.losses import pack_losses, scale_of
from pti_pipeline.noising import noised
from pti_pipeline.objective import PLAIN, Objective
from pti_pipeline.pivot import attached
from pti_pipeline.settings import InvertSettings
from pti_pipeline.state import State
from pti_pipeline.training import Losses, bounds, manner_of, optimise, rates

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
    base: BaseModel,
    material: Material,
    vectors: Tensor,
    seeds: Sequence[int],
    size: int,
    step: int,
    rows: slice,
    objective: Objective = PLAIN,
) -> Losses:
    """Denoising losses at one step of K experiments whose tokens read as ``vectors`` (K, n, H).

    Of each one's batch of ``size`` rows only ``rows`` are taken.
    """
    asked = noised(base, material, seeds, size, step, rows, objective)
    with attached(base.text_encoders, vectors):
        condition = base.condition(material.ids[asked.prompts])
    answers = base.predict(asked.noisy, asked.timesteps, condition)
    told = pack_losses(answers, asked.target, asked.area, asked.weights, len(seeds), size)
    return Losses.plain(*told)


def invert(
    base: BaseModel,
    material: Material,
    vectors: Tensor,
    experiments: Sequence[InvertSettings],
    state: State | None = None,
) -> Iterator[Moment]:
    """Learn the placeholder's vectors; nothing else of the base changes.

    Parameters
    ----------
    base : BaseModel
    material : Material
        The subject, encoded with the placeholder's tokens.
    vectors : Tensor, shape (K, n, H), float32
        Start of each experiment, also where one goes on; updated in place.
    experiments : sequence of InvertSettings, length K
        May differ in learning rate, clipping, average, seed and bound on the distance.
    state : State, optional
        Where to go on; kept up to date. At the beginning by default.

    Yields
    ------
    Moment
        After each optimizer update.
    """
    first, seeds = experiments[0], [e.seed for e in experiments]
    start, table = vectors.clone(), base.vocabulary()

    size = first.batch_size

    spared = [base.denoiser, *base.text_encoders] if first.checkpointing else []

    def loss(step: int, part: slice, rows: slice) -> Losses:
        mine = vectors[part], seeds[part], size, step, rows
        with recomputed(spared):
            return token_losses(base, material, *mine, first)

    bound, project = bounds(experiments, vectors), first.at_distance == "project"
    state = state or State.begin(len(seeds), vectors.device)
    state.bind([vectors])
    usual = norms.median_norms(table, base.widths) if first.norm == "vocabulary" else None

    @torch.no_grad()
    def settle() -> Tensor:
        if usual is not None:
            vectors.copy_(norms.rescaled(vectors, usual, base.widths))
        if project:
            share = (bound / distance.delta_norm(vectors, start)).to(vectors.dtype)[:, None, None]
            vectors.copy_(torch.where(share < 1, start + share * (vectors - start), vectors))
        return distance.norm_ratio(vectors, table) <= FAR

    steps = max(e.steps for e in experiments)
    lr, clip = rates(experiments, vectors)
    manner = manner_of(experiments, scale_of(base.dtype, size * material.mean[0].numel()))
    before = vectors.detach().clone()
    for record in optimise([vectors], loss, lr, steps, clip, settle, state, size, manner):
        now = vectors.detach()
        state.path = state.path + distance.delta_norm(now, before)
        state.nominal = state.nominal + record.lr
        travelled, before = distance.delta_norm(now, start), now.clone()
        if not project:
            state.stop |= travelled >= bound
        travels = travelled, state.path, state.nominal
        metrics = {"train/loss": record.loss, **distance.report(*travels)}
        metrics["distance/angle"] = distance.angle(now, start)
        metrics["distance/norm_ratio"] = distance.norm_ratio(now, table)
        derived = distance.derived(*travels, now[0].numel())
        derived["train/lr"] = record.lr
        yield Moment(record.step, metrics, derived, record.alive, record.going)
