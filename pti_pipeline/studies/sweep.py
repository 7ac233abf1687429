"""A sweep: one stage at every learning rate, seed and value of a setting, one run each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from pti_pipeline.errors import DivergedError
from pti_pipeline.objective import objective_of
from pti_pipeline.settings import FinetuneSettings, InvertSettings, TrainSettings
from pti_pipeline.steps.attempts import AUTO, Attempt, Within, attempt
from pti_pipeline.steps.prepared import (
    Finetuning,
    Inversion,
    facts,
    prepare_finetuning,
    prepare_inversion,
    seen,
)
from pti_pipeline.steps.resuming import begin, forget
from pti_pipeline.studies.cluster import run_ray
from pti_pipeline.studies.local import Worker, hired, run_local, workers
from pti_pipeline.studies.packs import Pack, split
from pti_pipeline.tracking.dataset import log_dataset, log_pictures
from pti_pipeline.tracking.find import check_study, get_run, members
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.system import watched
from pti_pipeline.tracking.views import write_views
from pti_pipeline.values import shown

WORKERS = "pti.workers"
"""Tag of a sweep: for how many workers it was split into packs, which is part of how it rounds."""


@dataclass(frozen=True)
class Executor:
    """Where a sweep's packs run: ``"local"``, or ``"ray"`` at an address."""

    name: str = "local"
    address: str = ""


def sweep(whole: Pack, executor: Executor, resume: str = AUTO) -> str:
    """Train every experiment of ``whole``, in as many packs as it takes.

    Parameters
    ----------
    whole : Pack
        All experiments, of any shapes.
    executor : Executor
    resume : str
        See :func:`pti_pipeline.steps.attempts.attempt`.

    Returns
    -------
    str
        The summary run's id.

    Raises
    ------
    UsageError, DataError, ModelError
        Whatever is wrong, before any run is made.
    DivergedError
        If every experiment diverged.
    """
    parts = split(whole.experiments, wide := workers())
    with hired(0 if executor.name == "ray" else len(parts)) as waiting:
        ready = _prepared(whole)
        within = Within(whole.study, varied=whole.varied)
        experiments = [{**asdict(e), **_resolved(ready, e)} for e in whole.experiments]
        every = {**facts(ready, whole.watch, within), "step": "sweep", "experiments": experiments}
        found = attempt([every], resume, within)
        if found.finished:
            return found.finished[0]
        if before := found.runs[0]:
            parts = split(whole.experiments, wide := int(before.tags.get(WORKERS, wide)))
        whole = replace(whole, subject={**whole.subject, "images": str(ready.images.resolve())})
        tags = {WORKERS: str(wide), **found.tags[0]}
        run = _run(whole, ready, parts, executor, waiting, found, tags)
    write_views()
    return run


def _run(
    whole: Pack,
    ready: Inversion | Finetuning,
    parts: Sequence[Sequence[TrainSettings]],
    executor: Executor,
    waiting: list[Worker],
    found: Attempt,
    marks: Mapping[str, str],
) -> str:
    tags = {"pti.step": "sweep", "pti.stage": whole.stage, "pti.study": whole.study, **marks}
    params = {**asdict(whole.where), **whole.subject, **_axes(whole.experiments, whole.varied)}
    held = str(params.get("regularizer", "none"))
    name = f"sweep {whole.stage}" if held == "none" else f"sweep {whole.stage} {held}"
    with open_run(name, params, tags, earlier=found.earlier[0]) as run, watched(run):
        begin(found, [run])
        log_dataset([run], ready.subject, ready.images)
        log_pictures(run, seen(ready, whole.experiments[0]))
        packs = [
            replace(whole, experiments=tuple(part), sweep=run.id, name=f"{i}/{len(parts)}")
            for i, part in enumerate(parts, 1)
        ]
        if executor.name == "ray":
            run_ray(packs, executor.address)
        else:
            run_local(packs, waiting)
        forget([run])
        if not any(m.tags.get("pti.outcome") == "finished" for m in members(get_run(run.id))):
            raise DivergedError(
                "E901", "every experiment of the sweep diverged", "use smaller learning rates"
            )
        return run.id


def _resolved(ready: Inversion | Finetuning, settings: TrainSettings) -> dict[str, str]:
    """Run id of the pivot that an experiment names, maybe by a sweep that chose one."""
    if isinstance(ready, Inversion) or not isinstance(settings, FinetuneSettings):
        return {}
    return {"pivot": ready.inversions[settings.pivot].id}


def _prepared(whole: Pack) -> Inversion | Finetuning:
    """Load everything once, so that errors come before runs."""
    check_study(whole.study)
    images = whole.subject["images"]
    if whole.stage == "invert":
        words = whole.subject["token"], whole.subject["initializer"]
        inversions = cast("Sequence[InvertSettings]", whole.experiments)
        return prepare_inversion(whole.where, Path(images), *words, inversions)
    settings = cast("Sequence[FinetuneSettings]", whole.experiments)
    return prepare_finetuning(whole.where, settings, Path(images) if images else None)


def _axes(experiments: Sequence[TrainSettings], varied: str) -> dict[str, object]:
    first = experiments[0]
    axes: dict[str, object] = {
        "lrs": ",".join(f"{v:g}" for v in dict.fromkeys(e.lr for e in experiments)),
        "seeds": ",".join(str(v) for v in dict.fromkeys(e.seed for e in experiments)),
        "steps": first.steps,
        "batch_size": first.batch_size,
        **{name: v for name, v in objective_of(first).items() if name != varied},
    }
    if varied != "optimizer":
        axes["optimizer"] = first.optimizer
    if isinstance(first, FinetuneSettings):
        axes["pivot"] = ",".join(
            dict.fromkeys(cast("FinetuneSettings", e).pivot for e in experiments)
        )
        names = ("regularizer", "reg_weight", "reg_every", "kappa")
        axes |= {name: getattr(first, name) for name in names if name != varied}
    if varied not in ("", "pivot"):
        values = dict.fromkeys(shown(getattr(e, varied)) for e in experiments)
        axes["vary"] = f"{varied}:{','.join(values)}"
    return axes
