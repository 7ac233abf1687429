"""The evaluation step: metrics and a sample grid for a run, or for every run of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from pti_pipeline import __version__
from pti_pipeline.comparison import compare
from pti_pipeline.errors import UsageError
from pti_pipeline.meter import Case, Equipment, Measured, Meter, equipment
from pti_pipeline.progress import tqdm
from pti_pipeline.readers import reader_names
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.sharing import measure_all
from pti_pipeline.steps.attempts import AUTO, NO, Within, attempt
from pti_pipeline.steps.bracketed import UNSAMPLED, bracketed
from pti_pipeline.steps.cases import to_measure
from pti_pipeline.steps.measured import CLASS, keep, kept
from pti_pipeline.tracking.dataset import log_dataset
from pti_pipeline.tracking.find import Found, get_run, members
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.runs import open_run

EVALUATION = "pti.evaluation"
"""Tag of a training: the run that measured it last."""
TRAVELLED = ("distance/delta_norm", "distance/log10")


def evaluate(
    where: BaseSettings,
    run_id: str,
    samples: int,
    edit_seeds: int,
    how: SampleSettings,
    study: str = "",
    clip_model: str = "",
    dino_model: str = "",
    deciding: int = 0,
) -> str:
    """Measure the runs of ``run_id`` and log the numbers in each; return this step's run id.

    Parameters
    ----------
    where : BaseSettings
    run_id : str
        A run of invert or finetune, or a sweep's summary run: then all of its runs.
    samples : int
        Samples without a position in the prompt, for appearance, leak and diversity.
    edit_seeds : int
        Samples of each edit prompt.
    how : SampleSettings
    study : str
        Run id of the study that this belongs to.
    clip_model, dino_model : str
        Folders or hub ids of models that compare pictures; none by default.
    deciding : int
        Of a sweep of tunings that read twins, how many distances are sampled: those around
        where positions start being learnt. 0 for all.
    """
    target = get_run(run_id)
    runs, passed_over = bracketed(_finished(target), deciding)
    images, initializer = Path(runs[0].tags["pti.images"]), runs[0].tags["pti.initializer"]
    meter = Meter(where, images, initializer, samples, edit_seeds, how, clip_model, dino_model)
    kit = equipment(meter)
    readers = reader_names(kit.readers, kit.subject)
    params, about = _params(meter), _about(meter, kit, readers)
    more = {"run": target.id, "deciding": deciding}
    own = {"step": "evaluate", "study": study, **params, **more, **about}
    found = attempt([own], AUTO if study else NO, Within(study))  # alone it keeps nothing
    if found.finished:
        return found.finished[0]
    known = kept(study, params, about)
    missing = to_measure(runs, known, kit.base)
    tags = {"pti.step": "evaluate", "pti.study": study, "pti.evaluated": target.id, **about}
    tags |= found.tags[0]
    title, earlier = f"evaluate {target.name}", found.earlier[0]
    with open_run(title, {**params, **more}, tags, earlier=earlier) as run:
        found.release()
        log_dataset([run], kit.subject, images)
        for each in passed_over:
            run.add_to(each, {}, {"pti.unsampled": UNSAMPLED})
        trained = {each.id: each for each in runs}
        for name in trained.keys() & known.keys():
            _tell(run, trained[name], meter, known, readers)
        for name, measured in _measured(run, meter, missing):
            known[name] = measured
            if name in trained:
                _tell(run, trained[name], meter, known, readers)
        return run.id


def _finished(target: Found) -> list[Found]:
    """Trainings to be measured, at least one."""
    runs = [run for run in members(target) if run.tags.get("pti.outcome") == "finished"]
    if not runs:
        raise UsageError("E212", f"run '{target.name}' has no finished training", "train first")
    return runs


def _params(meter: Meter) -> dict[str, object]:
    """How it is measured, as parameters."""
    names = ("samples", "edit_seeds", "clip_model", "dino_model")
    own = {name: getattr(meter, name) for name in names}
    return {**asdict(meter.where), **asdict(meter.how), **own}


def _about(meter: Meter, kit: Equipment, readers: Mapping[str, str]) -> dict[str, str]:
    """What it is measured with and by, as tags."""
    return {
        "pti.base_fingerprint": kit.base.fingerprint,
        "pti.data_fingerprint": kit.subject.fingerprint,
        "pti.initializer": meter.word,
        "pti.masks": sha256(kit.masks.tobytes()).hexdigest(),
        "pti.version": __version__,
        **readers,
    }


def _measured(
    run: Run, meter: Meter, missing: Sequence[tuple[list[str], Case]]
) -> Iterator[tuple[str, Measured]]:
    """Measure what is missing, by name; each is kept before the next."""
    names = [name for group, _ in missing for name in group]
    measuring = measure_all(meter, [case for _, case in missing])
    followed = tqdm(measuring, "evaluating", len(names), unit="character")
    for name, measured in zip(names, followed, strict=True):
        keep(run, name, measured)
        yield name, measured


def _tell(
    run: Run, found: Found, meter: Meter, known: Mapping[str, Measured], readers: Mapping[str, str]
) -> None:
    """Log a training's numbers in its run, and its grid here; once, should this go on."""
    if get_run(found.id).tags.get(EVALUATION) == run.id:  # before it was interrupted
        return
    pivot, own = found.tags.get("pti.pivot"), known[found.id]
    references = {"class": known[CLASS]} | ({"pivot": known[pivot]} if pivot else {})
    metrics, missing = compare(meter, own, references)
    cleared = {"pti.unsampled": ""} if "pti.unsampled" in found.tags else {}
    words = {EVALUATION: run.id, **cleared, **readers, **missing}
    run.log_image(f"samples/{found.name.replace('=', ' ')}", own.grid, 0)
    run.add_to(found, _travelled(found) | metrics, words)  # last: it tells that all is done


def _travelled(run: Found) -> dict[str, float]:
    """Distances of a training, to be told once more as those of its weights."""
    return {key: run.metrics[key] for key in TRAVELLED if key in run.metrics}
