"""A sweep: one stage at every learning rate and seed, all in one pass, one run each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pti_pipeline.settings import FinetuneSettings, InvertSettings
from pti_pipeline.steps.finetune import Finetuning, run_finetunings
from pti_pipeline.steps.invert import Inversion, run_inversions
from pti_pipeline.tracking.runs import open_run


def sweep_inversion(
    ready: Inversion, experiments: Sequence[InvertSettings], sample_every: int, study: str
) -> str:
    """Invert with every experiment's settings; return the summary run's id."""
    tags = {"pti.step": "sweep", "pti.stage": "invert", "pti.study": study}
    params = {
        **asdict(ready.where),
        "images": ready.images,
        "token": ready.token,
        "initializer": ready.initializer,
    }
    with open_run("sweep invert", {**params, **_axes(experiments)}, tags) as run:
        run_inversions(ready, experiments, sample_every, study, run.id)
        return run.id


def sweep_finetuning(
    ready: Finetuning, experiments: Sequence[FinetuneSettings], sample_every: int, study: str
) -> str:
    """Fine-tune with every experiment's settings; return the summary run's id."""
    tags = {"pti.step": "sweep", "pti.stage": "finetune", "pti.study": study}
    params = {**asdict(ready.where), "pivot": ready.inversion.id, "images": ready.images}
    with open_run("sweep finetune", {**params, **_axes(experiments)}, tags) as run:
        run_finetunings(ready, experiments, sample_every, study, run.id)
        return run.id


def _axes(experiments: Sequence[InvertSettings] | Sequence[FinetuneSettings]) -> dict[str, object]:
    return {
        "lrs": ",".join(f"{e.lr:g}" for e in experiments),
        "steps": experiments[0].steps,
        "batch_size": experiments[0].batch_size,
    }
