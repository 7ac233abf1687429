"""A sweep: one stage at every learning rate and seed, all in one pass, one run each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pti_pipeline.settings import BaseSettings, FinetuneSettings, InvertSettings
from pti_pipeline.steps.finetune import run_finetunings
from pti_pipeline.steps.invert import run_inversions
from pti_pipeline.tracking.runs import open_run


def sweep_inversion(
    where: BaseSettings,
    images: Path,
    token: str,
    initializer: str,
    experiments: Sequence[InvertSettings],
    sample_every: int,
    study: str,
) -> str:
    """Invert with every experiment's settings; return the summary run's id."""
    tags = {"pti.step": "sweep", "pti.stage": "invert", "pti.study": study}
    params = {**asdict(where), "images": images, "token": token, "initializer": initializer}
    with open_run("sweep invert", {**params, **_axes(experiments)}, tags) as run:
        run_inversions(where, images, token, initializer, experiments, sample_every, study, run.id)
        return run.id


def sweep_finetuning(
    where: BaseSettings,
    pivot: str,
    images: Path | None,
    experiments: Sequence[FinetuneSettings],
    sample_every: int,
    study: str,
) -> str:
    """Fine-tune with every experiment's settings; return the summary run's id."""
    tags = {"pti.step": "sweep", "pti.stage": "finetune", "pti.study": study}
    params = {**asdict(where), "pivot": pivot, "images": images or ""}
    with open_run("sweep finetune", {**params, **_axes(experiments)}, tags) as run:
        run_finetunings(where, pivot, images, experiments, sample_every, study, run.id)
        return run.id


def _axes(experiments: Sequence[InvertSettings] | Sequence[FinetuneSettings]) -> dict[str, object]:
    return {
        "lrs": ",".join(f"{e.lr:g}" for e in experiments),
        "steps": experiments[0].steps,
        "batch_size": experiments[0].batch_size,
    }
