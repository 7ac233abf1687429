"""The fine-tuning step: LoRAs around a frozen pivot, for K experiments in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from pti_pipeline import lora
from pti_pipeline.batches import Material, prepare_views
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE
from pti_pipeline.characters import Characters, preview
from pti_pipeline.data import patterns_of
from pti_pipeline.families.base import BaseModel
from pti_pipeline.pivot import Pivot, load_pivot, placeholder_tokens
from pti_pipeline.prefixes import Shared, share
from pti_pipeline.preview import WatchSettings
from pti_pipeline.probes import build_probe, encode_probe, read
from pti_pipeline.regularizers import Regularization, regularize
from pti_pipeline.settings import FinetuneSettings, SampleSettings
from pti_pipeline.state import State
from pti_pipeline.steps.attempts import ALONE, AUTO, Within, attempt
from pti_pipeline.steps.prepared import Finetuning, facts
from pti_pipeline.steps.under_way import Words, train, under_way
from pti_pipeline.targets import chosen
from pti_pipeline.tracking.find import Found, fetch
from pti_pipeline.tracking.members import View, grid_view, metric_view
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.weights import log_weights
from pti_pipeline.tuning import finetune
from pti_pipeline.twins import make_twins
from pti_pipeline.values import label
from pti_pipeline.watching import judge, watch_steps

INHERITED = ("pti.base", "pti.base_fingerprint", "pti.token", "pti.initializer")
"""Tags that a tuning has from its inversion."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """LoRAs on a base model, and what they are trained with.

    Attributes
    ----------
    adapter : Adapter
    pivots : list of Pivot, length K
    who : Characters
        These pivots, as one.
    files : dict of str to Path
        Of all pivots, by the ids of their runs.
    material : Material
    terms : list of Regularization, length K
    """

    adapter: lora.Adapter
    pivots: list[Pivot]
    who: Characters
    files: dict[str, Path]
    material: Material
    terms: list[Regularization]


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
    same, inversions = facts(ready, watch, within), [ready.inversions[e.pivot] for e in experiments]
    params = [{**asdict(e), "pivot": i.id} for e, i in zip(experiments, inversions, strict=True)]
    found = attempt([{**same, **own} for own in params], resume, within)
    if found.finished:
        return found.finished
    shared = share(experiments)
    words = [
        Words(f"finetune {label(e, within.varied)}", own, _tags(inversion))
        for e, own, inversion in zip(experiments, params, inversions, strict=True)
    ]
    with (
        _attached(ready, shared.trained) as tuned,
        under_way(ready, found, shared, words, "tuning") as going,
    ):

        def keep(k: int, owner: int) -> None:
            _keep(going.runs[k], ready.base, tuned.adapter, owner)
            going.runs[k].log_artifact(tuned.files[inversions[k].id], "pivot")
            log_weights(going.runs[k], "lora", f"lora/{LORA_FILE}", experiments[k])

        views = _views(ready, tuned, shared, watch, going.state)
        around = tuned.material, tuned.pivots, shared.trained, tuned.terms
        moments = finetune(ready.base, tuned.adapter, *around, going.state)
        train(going, moments, "fine-tuning", views, keep)
    return [run.id for run in going.runs]


def _tags(inversion: Found) -> dict[str, str]:
    """What a run says of the pivot that it starts from."""
    inherited = {key: inversion.tags[key] for key in INHERITED}
    return {"pti.step": "finetune", **inherited, "pti.pivot": inversion.id}


@contextmanager
def _attached(ready: Finetuning, trained: Sequence[FinetuneSettings]) -> Iterator[Tuned]:
    """Fetch the pivots, and have the base model answer with a new LoRA around each."""
    base, first = ready.base, trained[0]
    with TemporaryDirectory() as folder:
        files = {
            pivot.id: fetch(pivot, f"pivot/{PIVOT_FILE}", Path(folder) / pivot.id)
            for pivot in ready.inversions.values()
        }
        loaded = {run_id: load_pivot(file) for run_id, file in files.items()}
        pivots = [loaded[ready.inversions[e.pivot].id] for e in trained]
        who = Characters(pivots[0].token, torch.stack([p.embedding for p in pivots]))
        tokens = placeholder_tokens(who.name, who.vectors.shape[1])
        material = prepare_views(base, ready.subject, ready.images, tokens, first)
        adapter = _adapter(base, trained)
        try:
            prompts = patterns_of(ready.subject, who.name)
            terms = regularize(base, adapter, material, pivots, prompts, first)
            yield Tuned(adapter, pivots, who, files, material, terms)
        finally:
            lora.detach(adapter)


def _adapter(base: BaseModel, trained: Sequence[FinetuneSettings]) -> lora.Adapter:
    """Attach a new LoRA of each experiment."""
    first, seeds = trained[0], [e.seed for e in trained]
    targets = chosen(base.denoiser, first, base.feed_forward)
    return lora.attach(
        base.denoiser,
        first.rank,
        first.alpha,
        targets,
        seeds,
        first.rslora == "yes",
        base.encoders if first.text_encoder == "yes" else lora.NONE,
        first.dora == "yes",
    )


def _views(
    ready: Finetuning,
    tuned: Tuned,
    shared: Shared[FinetuneSettings],
    watch: WatchSettings,
    state: State,
) -> list[View]:
    """Sample grids, and twins and functions against those of the pivots."""
    base, adapter, who = ready.base, tuned.adapter, tuned.who

    def grids() -> list[NDArray[np.uint8]]:
        return preview(base, who, SampleSettings(), watch)

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
    trained = bool(adapter.encoders)

    def probed(step: int) -> list[dict[str, float]]:
        now = []
        for k, s in enumerate(states):
            with lora.only(adapter, slice(k, k + 1)):
                said = encode_probe(base, probe, who.vectors[k]) if trained else s
                now.append(read(base, probe, said))
        return judge(probe, now, before, shared.trained, state.stop, step)

    return [*views, metric_view(marks, shared, probed)]


def _keep(run: Run, base: BaseModel, adapter: lora.Adapter, owner: int) -> None:
    """Log one of the LoRAs."""
    facts = replace(adapter.config, timesteps=base.timesteps if adapter.hooks else 0).facts()
    with TemporaryDirectory() as folder:
        base.save_lora(lora.peft_state(adapter, owner), facts, Path(folder))
        run.log_artifact(Path(folder) / LORA_FILE, "lora")
