"""The fine-tuning step: LoRAs around a frozen pivot, for K experiments in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE
from pti_pipeline.characters import Characters, preview
from pti_pipeline.data import Subject, load_subject, patterns_of
from pti_pipeline.errors import DivergedError
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.pivot import load_pivot, placeholder_tokens
from pti_pipeline.prefixes import Shared, share, spread
from pti_pipeline.probes import build_probe, encode_probe, read
from pti_pipeline.regularizers import find as find_regularizer
from pti_pipeline.regularizers import regularize
from pti_pipeline.settings import (
    TARGETS,
    BaseSettings,
    FinetuneSettings,
    SampleSettings,
    WatchSettings,
)
from pti_pipeline.state import State
from pti_pipeline.steps.pivot_runs import check_base, find_pivots
from pti_pipeline.tracking.dataset import log_dataset, log_pictures
from pti_pipeline.tracking.find import Found, fetch
from pti_pipeline.tracking.members import View, follow, grid_view, metric_view, open_runs
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.system import watched
from pti_pipeline.tracking.weights import log_weights
from pti_pipeline.tuning import finetune
from pti_pipeline.twins import make_twins
from pti_pipeline.values import label
from pti_pipeline.watching import judge, watch_steps

INHERITED = ("pti.base", "pti.base_fingerprint", "pti.token", "pti.initializer")
"""Tags that a tuning has from its inversion."""


@dataclass(frozen=True)
class Finetuning:
    """Everything that a fine-tuning needs, loaded and checked.

    ``inversions`` are the runs that hold the pivots, by the run ids that the user gave.
    """

    where: BaseSettings
    base: BaseModel
    inversions: dict[str, Found]
    images: Path
    subject: Subject


def prepare_finetuning(
    where: BaseSettings, experiments: Sequence[FinetuneSettings], images: Path | None
) -> Finetuning:
    """Find the pivots, load the base and the pictures, before any run is made.

    Parameters
    ----------
    where : BaseSettings
        The base must be the one that the pivots were inverted on.
    experiments : sequence of FinetuneSettings
        Name the pivots.
    images : Path, optional
        The first inversion's own folder by default.

    Raises
    ------
    UsageError, DataError, ModelError
        If a run holds no pivot, the base is another, the pivots differ in more than their values,
        pictures can't be read, or there is no such regularizer.
    """
    for name in dict.fromkeys(e.regularizer for e in experiments):
        find_regularizer(name)
    inversions = find_pivots([e.pivot for e in experiments])
    base = load(where.base, where.device, where.precision)
    check_base(base, inversions.values())
    lora.check_rank(base.denoiser, max(e.rank for e in experiments), TARGETS)
    first = next(iter(inversions.values()))
    folder = images or Path(first.tags["pti.images"])
    return Finetuning(where, base, inversions, folder, load_subject(folder, base.resolution))


def run_finetunings(
    ready: Finetuning,
    experiments: Sequence[FinetuneSettings],
    watch: WatchSettings,
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
        May differ in what :data:`pti_pipeline.studies.packs.OWN` lists.
    watch : WatchSettings
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
    base, first, shared = ready.base, experiments[0], share(experiments)
    inversions = [ready.inversions[e.pivot] for e in experiments]
    words = {
        "pti.step": "finetune",
        "pti.study": study,
        "pti.sweep": sweep,
        "pti.pack": pack,
        "pti.data_fingerprint": ready.subject.fingerprint,
        "pti.images": str(ready.images.resolve()),
    }
    tags = [
        {**words, **{key: found.tags[key] for key in INHERITED}, "pti.pivot": found.id}
        for found in inversions
    ]
    params = [
        {**asdict(ready.where), "images": ready.images, **asdict(e), "pivot": found.id}
        for e, found in zip(experiments, inversions, strict=True)
    ]
    names = [f"finetune {label(e, varied)}" for e in experiments]
    with TemporaryDirectory() as temporary:
        files = {
            found.id: fetch(found, f"pivot/{PIVOT_FILE}", Path(temporary) / found.id)
            for found in ready.inversions.values()
        }
        loaded = {run_id: load_pivot(file) for run_id, file in files.items()}
        pivots = [loaded[ready.inversions[e.pivot].id] for e in shared.trained]
        token, vectors = pivots[0].token, torch.stack([p.embedding for p in pivots])
        material = prepare(base, ready.subject, placeholder_tokens(token, vectors.shape[1]))
        seeds = [e.seed for e in shared.trained]
        adapter = lora.attach(base.denoiser, first.rank, first.alpha, TARGETS, seeds)
        prompts = patterns_of(ready.subject, token)
        terms = regularize(base, adapter, material, pivots, prompts, first)
        with (
            open_runs(names, params, tags, not sweep) as runs,
            nullcontext() if sweep else watched(runs[0]),
        ):
            log_dataset(runs, ready.subject, ready.images)
            if not sweep:
                log_pictures(runs[0], ready.subject)
            who = Characters(token, vectors)
            state = State.begin(len(seeds), base.device)
            tuned = finetune(base, adapter, material, pivots, shared.trained, terms, state)
            learned: dict[int, dict[str, Tensor]] = {}

            def keep(_: Sequence[Run], step: int) -> None:
                learned.update({k: lora.peft_state(adapter, o) for k, o in shared.ending(step)})

            views = _views(ready, adapter, who, shared, watch, state)
            views.append(View(frozenset(shared.ends), keep))
            frozen = follow(runs, spread(tuned, shared), "fine-tuning", shared, views)
            for k, owner in enumerate(shared.owner):
                if k not in frozen:
                    weights = learned.get(k) or lora.peft_state(adapter, owner)  # if it stopped
                    _keep(runs[k], base, adapter, weights, files[inversions[k].id])
                    log_weights(runs[k], "lora", f"lora/{LORA_FILE}", experiments[k])
            if frozen and not sweep:
                raise DivergedError(
                    "E901",
                    f"the tuning diverged at step {frozen[0]}",
                    "use a smaller learning rate",
                )
            return [run.id for run in runs]


def _views(
    ready: Finetuning,
    adapter: lora.Adapter,
    who: Characters,
    shared: Shared[FinetuneSettings],
    watch: WatchSettings,
    state: State,
) -> list[View]:
    """Sample grids, and twins and functions against those of the pivots."""
    base = ready.base

    def grids() -> list[NDArray[np.uint8]]:
        return preview(base, who, SampleSettings())

    views = [grid_view(watch.sample_every, shared, grids)]
    if not (marks := watch_steps(watch, shared.trained)):
        return views
    initializer = next(iter(ready.inversions.values())).tags["pti.initializer"]
    twins = make_twins(ready.subject, ready.images)
    with lora.disabled(adapter):
        words = who.name, who.vectors.shape[1], initializer
        probe = build_probe(base, ready.subject, twins, *words)
        states = [encode_probe(base, probe, vectors) for vectors in who.vectors]
        before = [read(base, probe, s) for s in states]

    def probed(step: int) -> list[dict[str, float]]:
        now = []
        for k, s in enumerate(states):
            with lora.only(adapter, slice(k, k + 1)):
                now.append(read(base, probe, s))
        return judge(probe, now, before, shared.trained, state.stop, step)

    return [*views, metric_view(marks, shared, probed)]


def _keep(
    run: Run,
    base: BaseModel,
    adapter: lora.Adapter,
    weights: Mapping[str, Tensor],
    pivot_file: Path,
) -> None:
    """Log the LoRA, and the pivot's own file."""
    config, timesteps = adapter.config, base.timesteps if adapter.hooks else 0
    facts = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": list(TARGETS)}
    facts |= {"timestep_rank": timesteps} if timesteps else {}
    with TemporaryDirectory() as folder:
        base.save_lora(weights, facts, Path(folder))
        run.log_artifact(Path(folder) / LORA_FILE, "lora")
    run.log_artifact(pivot_file, "pivot")
