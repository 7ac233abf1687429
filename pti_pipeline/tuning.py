"""Pivotal tuning: K LoRAs around frozen pivots, after Roich et al. (2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pti_pipeline import distance, lora, travel
from pti_pipeline.batches import Material
from pti_pipeline.families.base import BaseModel
from pti_pipeline.families.recomputing import Around, recomputed
from pti_pipeline.holding import Draw, Rows, beside, gather
from pti_pipeline.inversion import Moment
from pti_pipeline.losses import denoising_loss, scale_of
from pti_pipeline.noising import noised
from pti_pipeline.pivot import Pivot, attached
from pti_pipeline.regularizers import Regularization
from pti_pipeline.settings import FinetuneSettings
from pti_pipeline.state import State
from pti_pipeline.training import Losses, bounds, manner_of, optimise, rates


@torch.no_grad()
def encode_prompts(base: BaseModel, pivot: Pivot, ids: Tensor) -> Tensor:
    """Token states (P, L, H) of prompts that name the pivot."""
    with attached(base.text_encoders, pivot.embedding[None].to(base.device)):
        return base.condition(ids)


def encode_each(base: BaseModel, pivots: Sequence[Pivot], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token states (n, P, L, H) of the n distinct pivots, and which of them is whose, (K,)."""
    distinct = {id(pivot): pivot for pivot in pivots}
    states = torch.stack([encode_prompts(base, pivot, ids) for pivot in distinct.values()])
    places = [list(distinct).index(id(pivot)) for pivot in pivots]
    return states, torch.tensor(places, device=states.device)


def encode_rows(base: BaseModel, adapter: lora.Adapter, rows: Rows) -> Tensor:
    """Token states of rows, by the text encoders as they are now if they are trained."""
    if not adapter.encoders:
        return rows.states
    with attached(base.text_encoders, rows.vectors):
        return base.condition(rows.ids)


@dataclass(frozen=True, eq=False)
class Tuned:
    """What the losses of K tunings are made of.

    Attributes
    ----------
    base : BaseModel
    adapter : Adapter
        Their LoRAs, attached to the base.
    material : Material
        The subject, encoded.
    states : Tensor, shape (n, P, L, H)
        Of every prompt, with each of the n distinct pivots.
    whose : Tensor, shape (K,), int64
        Which of these is whose.
    vectors : Tensor, shape (K, v, H)
        The pivots.
    seeds : sequence of int, length K
    draws : sequence of callable, length K or 0
        What a regularizer holds.
    weight : Tensor, shape (K,)
        Of its term.
    settings : FinetuneSettings
        Of the first, for what all have alike.
    """

    base: BaseModel
    adapter: lora.Adapter
    material: Material
    states: Tensor
    whose: Tensor
    vectors: Tensor
    seeds: Sequence[int]
    draws: Sequence[Draw]
    weight: Tensor
    settings: FinetuneSettings

    def holds(self, step: int) -> bool:
        """Whether the regularizer has rows at a step, from 0."""
        return bool(self.draws) and step % self.settings.reg_every == 0


def picture_rows(tuned: Tuned, step: int, part: slice, some: slice) -> Rows:
    """Rows of the pictures of the experiments in ``part``: ``some`` of each one's batch."""
    how, seeds = tuned.settings, tuned.seeds[part]
    asked = noised(tuned.base, tuned.material, seeds, how.batch_size, step, some, how)
    each = len(asked.noisy) // len(seeds)
    whose = tuned.whose[part].repeat_interleave(each)
    return Rows(
        noisy=asked.noisy,
        timesteps=asked.timesteps,
        states=tuned.states[whose, asked.prompts],
        target=asked.target,
        weights=asked.weights,
        area=asked.area,
        ids=tuned.material.ids[asked.prompts],
        vectors=tuned.vectors[part].repeat_interleave(each, 0),
    )


def tuning_losses(tuned: Tuned, step: int, part: slice, some: slice) -> Losses:
    """Losses of the experiments in ``part`` at one step, as far as ``some`` rows make them.

    What a regularizer holds goes through the denoiser together with the pictures.
    """
    base, adapter, seeds = tuned.base, tuned.adapter, tuned.seeds[part]
    own = rows = picture_rows(tuned, step, part, some)
    if tuned.holds(step):
        rows = beside(own, gather(tuned.draws[part], seeds, step, some), len(seeds))
    spared = [base.denoiser, *adapter.encoders.values()] if tuned.settings.checkpointing else []

    def anew() -> Around:
        return nullcontext(), lora.only(adapter, part)  # the rows are of the same ones again

    with lora.only(adapter, part), recomputed(spared, anew):
        answers = base.predict(rows.noisy, rows.timesteps, encode_rows(base, adapter, rows))
    losses = denoising_loss(answers, rows.target, rows.area) * rows.weights
    nothing = denoising_loss(torch.zeros_like(own.target), own.target, own.area) * own.weights
    losses, nothing = (each.unflatten(0, (len(seeds), -1)) for each in (losses, nothing))
    n, size = nothing.shape[1], tuned.settings.batch_size
    parts = losses[:, :n], losses[:, n:], nothing
    pictures, term, nothing = (each.sum(1) / size for each in parts)
    if not tuned.holds(step):
        return Losses.plain(pictures, nothing)
    return Losses(pictures, nothing, term, tuned.weight[part])


def finetune(
    base: BaseModel,
    adapter: lora.Adapter,
    material: Material,
    pivots: Sequence[Pivot],
    experiments: Sequence[FinetuneSettings],
    regularizations: Sequence[Regularization] = (),
    state: State | None = None,
) -> Iterator[Moment]:
    """Train the LoRAs of ``adapter``; the pivots and the base stay as they are.

    Parameters
    ----------
    base : BaseModel
    adapter : Adapter
        One LoRA for each experiment, attached to the base's denoiser, and perhaps to its text
        encoders.
    material : Material
        The subject, encoded with the pivots' tokens.
    pivots : sequence of Pivot, length K
        Frozen: prompts are encoded once for each, or at each step where text encoders are trained.
        Of one token, and as many vectors.
    experiments : sequence of FinetuneSettings, length K
        May differ in learning rate, clipping, weight decay, average, seed, weight of the
        regularizer and bound on the distance.
    regularizations : sequence of Regularization, length K, optional
        What a regularizer adds to each; nothing by default.
    state : State, optional
        Where to go on; kept up to date. At the beginning by default.

    Yields
    ------
    Moment
        After each optimizer update.
    """
    first = experiments[0]
    with lora.disabled(adapter):
        states, whose = encode_each(base, pivots, material.ids)
    vectors = torch.stack([pivot.embedding for pivot in pivots]).to(states.device)
    regularizations = regularizations or [Regularization()] * len(experiments)
    weight = states.new_tensor([e.reg_weight * e.reg_every for e in experiments])
    # no weight is no term, and no rows that cost
    draws = [r.rows for r in regularizations if r.rows] if weight.any() else []
    seeds = [e.seed for e in experiments]
    tuned = Tuned(
        base, adapter, material, states, whose, vectors, seeds, draws, weight, settings=first
    )

    bound = bounds(experiments, adapter.parameters[0])
    project = first.at_distance == "project" or regularizations[0].ball
    state = state or State.begin(len(seeds), base.device)
    state.bind(adapter.parameters)

    @torch.no_grad()
    def settle() -> Tensor:
        if project:
            travelled = travel.travelled(adapter, travel.place(adapter))
            share = (bound / travelled).clamp(max=1).sqrt()
            for p in adapter.parameters:
                p.mul_(share.to(p.dtype)[:, None, None])
        return torch.ones_like(state.stop)

    steps = max(e.steps for e in experiments)
    lr, clip = rates(experiments, adapter.parameters[0])
    scale = scale_of(base.dtype, first.batch_size * material.mean[0].numel())
    manner = manner_of(experiments, scale, [e.weight_decay for e in experiments])
    numbers = sum(p[0].numel() for p in adapter.parameters)
    weights, before = travel.base_norm(adapter), travel.place(adapter)
    loss, size = partial(tuning_losses, tuned), first.batch_size
    for record in optimise(adapter.parameters, loss, lr, steps, clip, settle, state, size, manner):
        now = travel.place(adapter)
        state.path = state.path + travel.stepped(adapter, now, before)
        travelled, before = travel.travelled(adapter, now), now
        state.nominal = state.nominal + record.lr
        if not project:
            state.stop |= travelled >= bound
        travels = travelled, state.path, state.nominal
        metrics = {"train/loss": record.loss, **distance.report(*travels)}
        if draws:  # between two of its steps, what it was
            if tuned.holds(record.step - 1):
                state.term = record.term
            metrics["train/regularizer"] = state.term
        derived = distance.derived(*travels, numbers)
        derived |= {"train/lr": record.lr, "distance/relative": travelled / weights}
        yield Moment(record.step, metrics, derived, record.alive, record.going)
