"""The inversion step: a folder of pictures to a pivot, for K experiments in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.batches import prepare_views
from pti_pipeline.bundle import PIVOT_FILE
from pti_pipeline.characters import Characters, preview
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot, placeholder_tokens, save_pivot
from pti_pipeline.prefixes import Shared, share
from pti_pipeline.preview import WatchSettings
from pti_pipeline.probes import FAMILIES, build_probe, encode_probe, read
from pti_pipeline.settings import InvertSettings, SampleSettings
from pti_pipeline.state import State
from pti_pipeline.steps.attempts import ALONE, AUTO, Within, attempt
from pti_pipeline.steps.prepared import Inversion, facts
from pti_pipeline.steps.under_way import Words, train, under_way
from pti_pipeline.tracking.members import View, grid_view, metric_view
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.weights import log_weights
from pti_pipeline.twins import make_twins
from pti_pipeline.values import label
from pti_pipeline.watching import judge, watch_steps


def run_inversions(
    ready: Inversion,
    experiments: Sequence[InvertSettings],
    watch: WatchSettings,
    within: Within = ALONE,
    resume: str = AUTO,
) -> list[str]:
    """Learn one pivot for each experiment and log each as a run; return the runs' ids.

    Parameters
    ----------
    ready : Inversion
    experiments : sequence of InvertSettings
        May differ in learning rate and seed.
    watch : WatchSettings
    within : Within
    resume : str
        See :func:`pti_pipeline.steps.attempts.attempt`.

    Raises
    ------
    DivergedError
        If a single experiment diverged; in a sweep, the others go on.
    """
    same = facts(ready, watch, within)
    found = attempt([{**same, **asdict(e)} for e in experiments], resume, within)
    if found.finished:
        return found.finished
    base, first, shared = ready.base, experiments[0], share(experiments)
    vectors = ready.row.expand(len(shared.trained), first.vectors, -1).clone()
    start = vectors[0].clone()
    tokens = placeholder_tokens(ready.token, first.vectors)
    material = prepare_views(base, ready.subject, ready.images, tokens, first)
    words = [_words(ready, e, label(e, within.varied)) for e in experiments]
    with under_way(ready, found, shared, words, "inversion") as going:

        def keep(k: int, owner: int) -> None:
            learned = vectors[owner].detach().cpu()
            pivot = Pivot(ready.token, ready.initializer, learned, start.cpu(), base.widths)
            _keep(going.runs[k], pivot)
            log_weights(going.runs[k], "pivot", f"pivot/{PIVOT_FILE}", experiments[k])

        views = _views(ready, vectors, shared, watch, going.state)
        moments = invert(base, material, vectors, shared.trained, going.state)
        train(going, moments, "inverting", views, keep)
    return [run.id for run in going.runs]


def _words(ready: Inversion, settings: InvertSettings, name: str) -> Words:
    """What a run says of itself."""
    tags = {
        "pti.step": "invert",
        "pti.base": ready.where.base,
        "pti.base_fingerprint": ready.base.fingerprint,
        "pti.token": ready.token,
        "pti.initializer": ready.initializer,
    }
    subject = {"token": ready.token, "initializer": ready.initializer}
    return Words(f"invert {name}", {**subject, **asdict(settings)}, tags)


def _views(
    ready: Inversion,
    vectors: Tensor,
    shared: Shared[InvertSettings],
    watch: WatchSettings,
    state: State,
) -> list[View]:
    """Sample grids, and twins and functions against those of the class word."""
    base, first = ready.base, shared.trained[0]

    def grids() -> list[NDArray[np.uint8]]:
        return preview(base, Characters(ready.token, vectors), SampleSettings(), watch)

    views = [grid_view(watch.sample_every, shared, grids)]
    if not (marks := watch_steps(watch, shared.trained)):
        return views
    twins = make_twins(ready.subject, ready.images)
    words = ready.token, first.vectors, ready.initializer
    probe = build_probe(base, ready.subject, twins, *words, FAMILIES[:1])
    before = read(base, probe, encode_probe(base, probe, None))

    def probed(step: int) -> list[dict[str, float]]:
        now = [read(base, probe, encode_probe(base, probe, each)) for each in vectors]
        return judge(probe, now, [before] * len(now), shared.trained, state.stop, step)

    return [*views, metric_view(marks, shared, probed)]


def _keep(run: Run, pivot: Pivot) -> None:
    """Log the pivot."""
    with TemporaryDirectory() as folder:
        save_pivot(pivot, Path(folder) / PIVOT_FILE)
        run.log_artifact(Path(folder) / PIVOT_FILE, "pivot")
