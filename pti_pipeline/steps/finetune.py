"""The fine-tuning step: LoRAs around a frozen pivot, for K experiments in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE
from pti_pipeline.characters import Characters, preview
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.errors import DivergedError, ModelError, UsageError
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.pivot import load_pivot, placeholder_tokens
from pti_pipeline.settings import TARGETS, BaseSettings, FinetuneSettings, SampleSettings, label
from pti_pipeline.tracking.find import Found, fetch, get_run
from pti_pipeline.tracking.members import follow, open_runs
from pti_pipeline.tracking.runs import Run
from pti_pipeline.tuning import finetune


@dataclass(frozen=True)
class Finetuning:
    """Everything that a fine-tuning needs, loaded and checked."""

    where: BaseSettings
    base: BaseModel
    inversion: Found
    images: Path
    subject: Subject


def prepare_finetuning(where: BaseSettings, pivot_run: str, images: Path | None) -> Finetuning:
    """Find the pivot, load the base and the pictures, before any run is made.

    Parameters
    ----------
    where : BaseSettings
        The base must be the one that the pivot was inverted on.
    pivot_run : str
        Run id of an inversion, or of a sweep that chose one.
    images : Path, optional
        The inversion's own folder by default.

    Raises
    ------
    UsageError, DataError, ModelError
        If the run holds no pivot, the base is another, or pictures can't be read.
    """
    found = _pivot_run(pivot_run)
    base = load(where.base, where.device, where.precision)
    if base.fingerprint != found.tags["pti.base_fingerprint"]:
        raise ModelError(
            "E404",
            f"the pivot was inverted on base '{found.tags['pti.base']}', not on '{where.base}'",
            f"use --base {found.tags['pti.base']}",
        )
    folder = images or Path(found.tags["pti.images"])
    return Finetuning(where, base, found, folder, load_subject(folder, base.resolution))


def run_finetunings(
    ready: Finetuning,
    experiments: Sequence[FinetuneSettings],
    sample_every: int,
    study: str = "",
    sweep: str = "",
    pack: str = "",
    varied: str = "",
) -> list[str]:
    """Train one LoRA for each experiment and log each as a run; return the runs' ids.

    Parameters
    ----------
    ready : Finetuning
    experiments : sequence of FinetuneSettings
        May differ in learning rate and seed.
    sample_every : int
        Steps between two sample grids; 0 draws one at the end only.
    study, sweep : str
        Run ids of the study and sweep that these belong to.
    pack : str
        Which pack of the sweep this is.
    varied : str
        Name of the setting that the sweep varies beside learning rate and seed.

    Raises
    ------
    DivergedError
        If a single experiment diverged; in a sweep, the others go on.
    """
    base, found = ready.base, ready.inversion
    tags = {
        "pti.step": "finetune",
        "pti.study": study,
        "pti.sweep": sweep,
        "pti.pack": pack,
        "pti.pivot": found.id,
        "pti.data_fingerprint": ready.subject.fingerprint,
        "pti.images": str(ready.images.resolve()),
        **{
            k: found.tags[k]
            for k in ("pti.base", "pti.base_fingerprint", "pti.token", "pti.initializer")
        },
    }
    first = experiments[0]
    shared = {**asdict(ready.where), "pivot": found.id, "images": ready.images}
    names = [f"finetune {label(e, varied)}" for e in experiments]
    with TemporaryDirectory() as temporary:
        file = fetch(found, f"pivot/{PIVOT_FILE}", Path(temporary))
        pivot = load_pivot(file)
        material = prepare(
            base, ready.subject, placeholder_tokens(pivot.token, len(pivot.embedding))
        )
        params = [{**shared, **asdict(e)} for e in experiments]
        with open_runs(names, params, tags, not sweep) as runs:
            seeds = [e.seed for e in experiments]
            adapter = lora.attach(base.denoiser, first.rank, first.alpha, TARGETS, seeds)
            who = Characters(pivot.token, pivot.embedding.expand(len(runs), -1, -1))
            moments = finetune(base, adapter, material, pivot, experiments)

            def grids() -> list[NDArray[np.uint8]]:
                return preview(base, who, SampleSettings())

            frozen = follow(runs, moments, "fine-tuning", first.steps, sample_every, grids)
            for k, run in enumerate(runs):
                if k not in frozen:
                    _keep(run, base, adapter, k, file)
            if frozen and not sweep:
                raise DivergedError(
                    "E901",
                    f"the tuning diverged at step {frozen[0]}",
                    "use a smaller learning rate",
                )
            return [run.id for run in runs]


def _pivot_run(run_id: str) -> Found:
    found = get_run(run_id)
    found = get_run(found.tags.get("pti.choice", found.id))
    if found.tags.get("pti.step") != "invert":
        raise UsageError(
            "E211", f"run '{found.name}' ({run_id}) is no inversion", "give a run of invert"
        )
    return found


def _keep(run: Run, base: BaseModel, adapter: lora.Adapter, k: int, pivot_file: Path) -> None:
    """Log the LoRA, and the pivot's own file."""
    config = adapter.config
    facts = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": list(TARGETS)}
    with TemporaryDirectory() as folder:
        base.save_lora(lora.peft_state(adapter, k), facts, Path(folder))
        run.log_artifact(Path(folder) / LORA_FILE, "lora")
    run.log_artifact(pivot_file, "pivot")
