"""The fine-tuning step: LoRAs around a frozen pivot, for K experiments in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
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
from pti_pipeline.data import patterns_of
from pti_pipeline.errors import DivergedError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.pivot import load_pivot, placeholder_tokens
from pti_pipeline.prefixes import Shared, share, spread
from pti_pipeline.probes import build_probe, encode_probe, read
from pti_pipeline.regularizers import regularize
from pti_pipeline.settings import (
    TARGETS,
    FinetuneSettings,
    SampleSettings,
    WatchSettings,
)
from pti_pipeline.state import State
from pti_pipeline.steps.attempts import ALONE, AUTO, Attempt, Within, attempt
from pti_pipeline.steps.prepared import Finetuning, facts
from pti_pipeline.steps.resuming import begin, forget, keeping, restore
from pti_pipeline.tracking.dataset import log_dataset, log_pictures
from pti_pipeline.tracking.find import fetch
from pti_pipeline.tracking.members import (
    View,
    ending_view,
    follow,
    grid_view,
    metric_view,
    open_runs,
    stopped,
    tell_micro_batches,
)
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.system import watched
from pti_pipeline.tracking.weights import log_weights
from pti_pipeline.tuning import finetune
from pti_pipeline.twins import make_twins
from pti_pipeline.values import label
from pti_pipeline.views import crops
from pti_pipeline.watching import judge, watch_steps

INHERITED = ("pti.base", "pti.base_fingerprint", "pti.token", "pti.initializer")
"""Tags that a tuning has from its inversion."""


def run_finetunings(
    ready: Finetuning,
    experiments: Sequence[FinetuneSettings],
    watch: WatchSettings,
    within: Within = ALONE,
    resume: str = AUTO,
) -> list[str]:
    """Train one LoRA for each experiment and log each as a run; return the runs' ids.

    Parameters
    ----------
    ready : Finetuning
    experiments : sequence of FinetuneSettings
        May differ in what :data:`pti_pipeline.studies.packs.OWN` lists.
    watch : WatchSettings
    within : Within
    resume : str
        See :func:`pti_pipeline.steps.attempts.attempt`.

    Raises
    ------
    DivergedError
        If a single experiment diverged; in a sweep, the others go on.
    """
    same, own = facts(ready, watch, within), [ready.inversions[e.pivot].id for e in experiments]
    each = [{**same, **asdict(e), "pivot": id} for e, id in zip(experiments, own, strict=True)]
    found = attempt(each, resume, within.nested, bool(within.sweep))
    if found.finished:
        return found.finished
    base, first, shared = ready.base, experiments[0], share(experiments)
    alone = not within.sweep
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        files = {
            pivot.id: fetch(pivot, f"pivot/{PIVOT_FILE}", Path(temporary) / pivot.id)
            for pivot in ready.inversions.values()
        }
        loaded = {run_id: load_pivot(file) for run_id, file in files.items()}
        pivots = [loaded[ready.inversions[e.pivot].id] for e in shared.trained]
        who = Characters(pivots[0].token, torch.stack([p.embedding for p in pivots]))
        tokens = placeholder_tokens(who.name, who.vectors.shape[1])
        others = crops(ready.subject, ready.images, first.crops)
        material = prepare(base, ready.subject, tokens, first, others)
        seeds = [e.seed for e in shared.trained]
        adapter = lora.attach(base.denoiser, first.rank, first.alpha, TARGETS, seeds)
        stack.callback(lora.detach, adapter)
        prompts = patterns_of(ready.subject, who.name)
        terms = regularize(base, adapter, material, pivots, prompts, first)
        with (
            open_runs(*_described(ready, experiments, within, found), alone, found.earlier) as runs,
            watched(runs[0]) if alone else nullcontext(),
        ):
            begin(found, runs)
            log_dataset(runs, ready.subject, ready.images)
            if alone:
                log_pictures(runs[0], ready.subject)
            state, course = restore(found, len(seeds), base.device)

            def keep(k: int, owner: int) -> None:
                weights = lora.peft_state(adapter, owner)
                _keep(runs[k], base, adapter, weights, files[own[k]])
                log_weights(runs[k], "lora", f"lora/{LORA_FILE}", experiments[k])

            views = [
                *_views(ready, adapter, who, shared, watch, state),
                ending_view(shared, state, keep),
                keeping(found, runs, shared, state, course),
            ]
            tuned = finetune(base, adapter, material, pivots, shared.trained, terms, state)
            moments = spread(tuned, shared, course.frozen)
            follow(runs, moments, "fine-tuning", shared, views, course, found.step)
            tell_micro_batches(runs, state)
            for k, owner in stopped(shared, state, course):
                keep(k, owner)
            if course.frozen and alone:
                forget(runs)
                raise DivergedError(
                    "E901",
                    f"the tuning diverged at step {course.frozen[0]}",
                    "use a smaller learning rate",
                )
    forget(runs)
    return [run.id for run in runs]


def _described(
    ready: Finetuning, experiments: Sequence[FinetuneSettings], within: Within, found: Attempt
) -> tuple[list[str], list[dict[str, object]], list[dict[str, str]]]:
    """Names, parameters and tags of the runs."""
    words = {
        "pti.step": "finetune",
        **within.tags,
        "pti.data_fingerprint": ready.subject.fingerprint,
        "pti.images": str(ready.images.resolve()),
    }
    place = {**asdict(ready.where), "images": ready.images}
    inversions = [ready.inversions[e.pivot] for e in experiments]
    tags = [
        {**words, **{key: pivot.tags[key] for key in INHERITED}, "pti.pivot": pivot.id, **own}
        for pivot, own in zip(inversions, found.tags, strict=True)
    ]
    params = [
        {**place, **asdict(e), "pivot": pivot.id}
        for e, pivot in zip(experiments, inversions, strict=True)
    ]
    return [f"finetune {label(e, within.varied)}" for e in experiments], params, tags


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
