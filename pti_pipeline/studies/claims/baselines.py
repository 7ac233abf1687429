"""What others do, at its usual defaults, on the same subjects: baselines of the comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pti_pipeline import lora, travel
from pti_pipeline.batches import Material, prepare
from pti_pipeline.characters import Characters
from pti_pipeline.data import patterns_of
from pti_pipeline.families.base import BaseModel
from pti_pipeline.inversion import token_losses
from pti_pipeline.pivot import Pivot, placeholder_tokens
from pti_pipeline.regularizers import regularize
from pti_pipeline.settings import TARGETS, FinetuneSettings
from pti_pipeline.studies.claims.arms import ROWS
from pti_pipeline.studies.claims.bench import TOKEN, Bench, sampled
from pti_pipeline.studies.claims.cells import Result
from pti_pipeline.training import Losses, optimise, rates
from pti_pipeline.tuning import finetune

LORA_LR, TOKEN_LR = 1e-4, 3e-4
"""Of the LoRA: that of the README of diffusers' DreamBooth LoRA script, whose own default is 5e-4.
Of the token: that of cog-sdxl's joint training."""
HALFWAY = 0.5
"""Share of the steps after which the token is frozen: diffusers' and cog-sdxl's default."""
RARE = "~"
"""A word that no caption of the world holds."""


def dreambooth_cell(bench: Bench) -> Result:
    """DreamBooth LoRA (Ruiz et al. 2023): a rare word before the class word, and class pictures."""
    base, species = bench.base, bench.cell.character.species
    words = torch.stack([base.initializer_row(RARE), base.initializer_row(species)])
    settings = FinetuneSettings(
        lr=LORA_LR,
        steps=bench.effort.steps,
        seed=bench.cell.seed,
        batch_size=ROWS // 2,
        regularizer="prior-preservation",
    )
    pivots = [Pivot(TOKEN, species, words, words)]
    material = prepare(base, bench.subject, placeholder_tokens(TOKEN, len(words)))

    def train(adapter: lora.Adapter) -> Tensor:
        prompts = patterns_of(bench.subject, TOKEN)
        terms = regularize(base, adapter, material, pivots, prompts, settings)
        for _ in finetune(base, adapter, material, pivots, [settings], terms):
            pass
        return words

    return _trained(bench, settings, train)


def joint_cell(bench: Bench) -> Result:
    """Token and LoRA together, the token frozen halfway: what others call pivotal tuning."""
    base, cell = bench.base, bench.cell
    settings = FinetuneSettings(
        lr=LORA_LR, steps=bench.effort.steps, seed=cell.seed, batch_size=ROWS
    )
    row = base.initializer_row(cell.character.species)
    vectors = row.expand(1, cell.vectors, -1).clone()
    material = prepare(base, bench.subject, placeholder_tokens(TOKEN, cell.vectors))

    def train(adapter: lora.Adapter) -> Tensor:
        for _ in joint(base, adapter, material, vectors, settings):
            pass
        return vectors[0]

    return _trained(bench, settings, train)


def joint(
    base: BaseModel,
    adapter: lora.Adapter,
    material: Material,
    vectors: Tensor,
    settings: FinetuneSettings,
) -> Iterator[None]:
    """Train one token and one LoRA in the same steps.

    Parameters
    ----------
    vectors : Tensor, shape (1, n, H)
        Updated in place: in all steps of the first half, at :data:`TOKEN_LR`.

    Notes
    -----
    Adam's steps don't depend on the scale of a parameter, so what is trained at the LoRA's rate is
    the token's move over the ratio of both rates.
    """
    start, ratio = vectors.clone(), TOKEN_LR / settings.lr
    move, last = torch.zeros_like(vectors), round(HALFWAY * settings.steps)

    def loss(step: int, _: slice, rows: slice) -> Losses:
        now, seeds = start + ratio * move, [settings.seed]
        return token_losses(base, material, now, seeds, settings.batch_size, step, rows)

    kept = move.clone()
    lr, _ = rates([settings], move)
    size, parameters = settings.batch_size, [move, *adapter.parameters]
    for record in optimise(parameters, loss, lr, settings.steps, rows=size):
        with torch.no_grad():
            if record.step <= last:
                kept.copy_(move)
            move.copy_(kept)
            vectors.copy_(start + ratio * kept)
        yield


def _trained(
    bench: Bench, settings: FinetuneSettings, train: Callable[[lora.Adapter], Tensor]
) -> Result:
    """Train one LoRA, and look at it at its end."""
    references = {"class": sampled(bench, None)}
    adapter = lora.attach(
        bench.base.denoiser, settings.rank, settings.alpha, TARGETS, [settings.seed]
    )
    try:
        who = Characters(TOKEN, train(adapter)[None])
        travelled = travel.travelled(adapter, travel.place(adapter))
        run = {
            "lr": settings.lr,
            "diverged": not bool(travelled.isfinite().all()),
            "distance": float(travelled[0]),
            "samples": sampled(bench, who),
        }
    finally:
        lora.detach(adapter)
    return {"reference": references, "runs": [run]}
