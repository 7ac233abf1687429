"""Pivotal tuning: K LoRAs around frozen pivots, after Roich et al. (2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from pti_pipeline import distance, lora, travel
from pti_pipeline.batches import Material, draw_batch
from pti_pipeline.families.base import BaseModel
from pti_pipeline.families.recomputing import Around, recomputed
from pti_pipeline.holding import Rows, beside, gather
from pti_pipeline.inversion import Moment
from pti_pipeline.losses import denoising_loss
from pti_pipeline.pivot import Pivot, attached
from pti_pipeline.regularizers import Regularization
from pti_pipeline.settings import FinetuneSettings
from pti_pipeline.state import State
from pti_pipeline.training import Losses, bounds, manner_of, optimise, rates
from pti_pipeline.weighting import row_weights


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
    first, seeds = experiments[0], [e.seed for e in experiments]
    with lora.disabled(adapter):
        states, whose = encode_each(base, pivots, material.ids)
    vectors = torch.stack([pivot.embedding for pivot in pivots]).to(states.device)
    size = first.batch_size
    row_pivots = whose.repeat_interleave(size).unflatten(0, (len(seeds), -1))
    weights = travel.base_norm(adapter)

    regularizations = regularizations or [Regularization()] * len(seeds)
    draws = [r.rows for r in regularizations if r.rows]
    weight = states.new_tensor([e.reg_weight * e.reg_every for e in experiments])
    if not weight.any():
        draws = []  # no weight is no term, and no rows that cost

    spared = [base.denoiser, *adapter.encoders.values()] if first.checkpointing else []

    def around(part: slice) -> Around:
        return nullcontext(), lora.only(adapter, part)  # the rows are of the same ones again

    def loss(step: int, part: slice, some: slice) -> Losses:
        k, held = len(seeds[part]), draws and step % first.reg_every == 0
        drawn = seeds[part], size, base.timesteps, step, some
        batch = draw_batch(material, *drawn, first)
        times = base.drawn(batch.timesteps)
        noisy = base.add_noise(batch.latents, batch.noise, times)
        target = base.target(batch.latents, batch.noise, times)
        condition = states[row_pivots[part, some].flatten(), batch.prompts]
        weights = row_weights(base, times, first).to(noisy.dtype)
        words = material.ids[batch.prompts], vectors[part].repeat_interleave(len(noisy) // k, 0)
        rows = Rows(noisy, times, condition, target, weights, batch.area, *words)
        if held:
            rows = beside(rows, gather(draws[part], seeds[part], step, some), k)
        with lora.only(adapter, part), recomputed(spared, lambda: around(part)):
            told = encode_rows(base, adapter, rows)
            answers = base.predict(rows.noisy, rows.timesteps, told)
        losses = denoising_loss(answers, rows.target, rows.area) * rows.weights
        losses = losses.unflatten(0, (k, -1))
        nothing = denoising_loss(torch.zeros_like(target), target, batch.area) * weights
        nothing = nothing.unflatten(0, (k, -1))
        n = nothing.shape[1]
        own, term, nothing = (
            each.sum(1) / size for each in (losses[:, :n], losses[:, n:], nothing)
        )
        return Losses(own, nothing, term, weight[part]) if held else Losses.plain(own, nothing)

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
    manner = manner_of(experiments, [e.weight_decay for e in experiments])
    numbers = sum(p[0].numel() for p in adapter.parameters)
    before = travel.place(adapter)
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
            if (record.step - 1) % first.reg_every == 0:
                state.term = record.term
            metrics["train/regularizer"] = state.term
        derived = distance.derived(*travels, numbers)
        derived |= {"train/lr": record.lr, "distance/relative": travelled / weights}
        yield Moment(record.step, metrics, derived, record.alive, record.going)
