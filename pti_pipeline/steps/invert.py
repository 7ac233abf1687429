"""The inversion step: a folder of pictures to a pivot, for K experiments in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.batches import prepare
from pti_pipeline.bundle import PIVOT_FILE
from pti_pipeline.characters import Characters, preview
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.errors import DivergedError
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot, placeholder_tokens, save_pivot
from pti_pipeline.prefixes import Shared, share, spread
from pti_pipeline.probes import FAMILIES, build_probe, encode_probe, read
from pti_pipeline.settings import BaseSettings, InvertSettings, SampleSettings, WatchSettings
from pti_pipeline.state import State
from pti_pipeline.tracking.dataset import log_dataset, log_pictures
from pti_pipeline.tracking.members import View, follow, grid_view, metric_view, open_runs
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.system import watched
from pti_pipeline.tracking.weights import log_weights
from pti_pipeline.twins import make_twins
from pti_pipeline.values import label
from pti_pipeline.watching import judge, watch_steps


@dataclass(frozen=True)
class Inversion:
    """Everything that an inversion needs, loaded and checked."""

    where: BaseSettings
    base: BaseModel
    images: Path
    subject: Subject
    token: str
    initializer: str
    row: Tensor


def prepare_inversion(where: BaseSettings, images: Path, token: str, initializer: str) -> Inversion:
    """Load the base and the pictures, before any run is made.

    Parameters
    ----------
    where : BaseSettings
    images : Path
        Folder of the subject's pictures.
    token, initializer : str
        Placeholder token, and the word it starts from.

    Raises
    ------
    UsageError, DataError, ModelError
        Whatever is wrong with them.
    """
    base = load(where.base, where.device, where.precision)
    base.check_token(token)
    row = base.initializer_row(initializer)
    subject = load_subject(images, base.resolution)
    return Inversion(where, base, images, subject, token, initializer, row)


def run_inversions(
    ready: Inversion,
    experiments: Sequence[InvertSettings],
    watch: WatchSettings,
    study: str = "",
    sweep: str = "",
    pack: str = "",
    varied: str = "",
) -> list[str]:
    """Learn one pivot for each experiment and log each as a run; return the runs' ids.

    Parameters
    ----------
    ready : Inversion
    experiments : sequence of InvertSettings
        May differ in learning rate and seed.
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
    vectors = ready.row.expand(len(shared.trained), first.vectors, -1).clone()
    start = vectors[0].clone()
    material = prepare(base, ready.subject, placeholder_tokens(ready.token, first.vectors))
    tags = {
        "pti.step": "invert",
        "pti.study": study,
        "pti.sweep": sweep,
        "pti.pack": pack,
        "pti.base": ready.where.base,
        "pti.base_fingerprint": base.fingerprint,
        "pti.data_fingerprint": ready.subject.fingerprint,
        "pti.images": str(ready.images.resolve()),
        "pti.token": ready.token,
        "pti.initializer": ready.initializer,
    }
    words = {
        **asdict(ready.where),
        "images": ready.images,
        "token": ready.token,
        "initializer": ready.initializer,
    }
    names = [f"invert {label(e, varied)}" for e in experiments]
    params = [{**words, **asdict(e)} for e in experiments]
    with (
        open_runs(names, params, [tags] * len(names), not sweep) as runs,
        nullcontext() if sweep else watched(runs[0]),
    ):
        log_dataset(runs, ready.subject, ready.images)
        if not sweep:
            log_pictures(runs[0], ready.subject)
        state = State.begin(len(shared.trained), base.device)
        moments = spread(invert(base, material, vectors, shared.trained, state), shared)
        learned: dict[int, Tensor] = {}

        def keep(_: Sequence[Run], step: int) -> None:
            for k, owner in shared.ending(step):
                learned[k] = vectors[owner].detach().cpu().clone()

        views = _views(ready, vectors, shared, watch, state)
        views.append(View(frozenset(shared.ends), keep))
        frozen = follow(runs, moments, "inverting", shared, views)
        for k, owner in enumerate(shared.owner):
            if k not in frozen:
                value = learned.get(k, vectors[owner].detach().cpu())  # the latter if it stopped
                _keep(runs[k], Pivot(ready.token, ready.initializer, value, start.cpu()))
                log_weights(runs[k], "pivot", f"pivot/{PIVOT_FILE}", experiments[k])
        if frozen and not sweep:
            raise DivergedError(
                "E901",
                f"the inversion diverged at step {frozen[0]}",
                "use a smaller learning rate",
            )
        return [run.id for run in runs]


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
        return preview(base, Characters(ready.token, vectors), SampleSettings())

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
    with TemporaryDirectory() as folder:
        save_pivot(pivot, Path(folder) / PIVOT_FILE)
        run.log_artifact(Path(folder) / PIVOT_FILE, "pivot")
