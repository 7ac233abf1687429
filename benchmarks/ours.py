"""Our own training steps, as everything here measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pti_pipeline import lora
from pti_pipeline.batches import Material
from pti_pipeline.families.base import BaseModel
from pti_pipeline.inversion import Moment, invert
from pti_pipeline.pivot import Pivot
from pti_pipeline.regularizers import regularize
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.tuning import finetune

TOKEN = "<mochi>"
INITIALIZER = "rabbit"
RANK = 4
ENDLESS = 10**6
NEAR = 0.01
"""How far a pivot lies from its start, in every coordinate."""
PROMPTS = ("a photo of {}",)


def inversion(
    base: BaseModel, material: Material, rates: Sequence[float], batch: int
) -> Iterator[Moment]:
    """Invert one experiment for each learning rate, without end."""
    vectors = base.initializer_row(INITIALIZER).expand(len(rates), 1, -1).clone()
    return invert(base, material, vectors, [InvertSettings(r, ENDLESS, batch) for r in rates])


def tuning(
    base: BaseModel, material: Material, rates: Sequence[float], batch: int, **settings: Any
) -> Iterator[Moment]:
    """Tune one LoRA for each learning rate, without end; ``base`` serves no other tuning."""
    row = base.initializer_row(INITIALIZER)[None]
    adapter = lora.attach(base.denoiser, RANK, float(RANK), TARGETS, [0] * len(rates))
    runs = [FinetuneSettings(r, ENDLESS, batch, rank=RANK, **settings) for r in rates]
    pivots = [Pivot(TOKEN, INITIALIZER, row + NEAR, row)] * len(rates)
    terms = regularize(base, adapter, material, pivots, PROMPTS, runs[0])
    return finetune(base, adapter, material, pivots, runs, terms)


STAGES = {"invert": inversion, "finetune": tuning}
