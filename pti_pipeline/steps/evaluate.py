"""The evaluation step: metrics and a sample grid for a run, or for every run of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from pti_pipeline import __version__
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE
from pti_pipeline.characters import Characters, class_word
from pti_pipeline.comparison import compare
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.meter import Case, Measured, Meter, equipment
from pti_pipeline.pivot import load_pivot
from pti_pipeline.readers import reader_names
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.sharing import measure_all
from pti_pipeline.steps.attempts import AUTO, NO, Within, attempt
from pti_pipeline.steps.bracketed import UNSAMPLED, bracketed
from pti_pipeline.steps.measured import CLASS, keep, kept
from pti_pipeline.tracking.dataset import log_dataset
from pti_pipeline.tracking.find import Found, fetch, get_run, members
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
    clip: str = "",
    dino: str = "",
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
    clip, dino : str
        Folders or hub ids of models that compare pictures; none by default.
    deciding : int
        Of a sweep of tunings that read twins, how many distances are sampled: those around
        where positions start being learnt. 0 for all.
    """
    target = get_run(run_id)
    runs = [r for r in members(target) if r.tags.get("pti.outcome") == "finished"]
    if not runs:
        raise UsageError("E212", f"run '{target.name}' has no finished training", "train first")
    runs, passed_over = bracketed(runs, deciding)
    first = runs[0]
    images, initializer = Path(first.tags["pti.images"]), first.tags["pti.initializer"]
    meter = Meter(where, images, initializer, samples, edit_seeds, how, clip, dino)
    kit = equipment(meter)
    readers = reader_names(kit.readers, kit.subject)
    params = {
        **asdict(where),
        **asdict(how),
        "samples": samples,
        "edit_seeds": edit_seeds,
        "clip": clip,
        "dino": dino,
    }
    more = {"run": target.id, "deciding": deciding}
    about = {
        "pti.base_fingerprint": kit.base.fingerprint,
        "pti.data_fingerprint": kit.subject.fingerprint,
        "pti.initializer": initializer,
        "pti.masks": sha256(kit.masks.tobytes()).hexdigest(),
        "pti.version": __version__,
        **readers,
    }
    own = {"step": "evaluate", "study": study, **params, **more, **about}
    attempted = attempt([own], AUTO if study else NO, Within(study))  # alone it keeps nothing
    if attempted.finished:
        return attempted.finished[0]
    known = kept(study, params, about)
    todo = _missing(runs, known, kit.base)
    tags = {"pti.step": "evaluate", "pti.study": study, "pti.evaluated": target.id, **about}
    tags |= attempted.tags[0]
    name, words, earlier = f"evaluate {target.name}", {**params, **more}, attempted.earlier[0]
    with open_run(name, words, tags, earlier=earlier) as run:
        attempted.release()
        log_dataset([run], kit.subject, images)

        def log(found: Found) -> None:
            if get_run(found.id).tags.get(EVALUATION) == run.id:  # before it was interrupted
                return
            own = found.tags.get("pti.pivot")
            references = {"class": known[CLASS]} | ({"pivot": known[own]} if own else {})
            metrics, missing = compare(meter, known[found.id], references)
            cleared = {"pti.unsampled": ""} if "pti.unsampled" in found.tags else {}
            words = {EVALUATION: run.id, **cleared, **readers, **missing}
            run.log_image(f"samples/{found.name.replace('=', ' ')}", known[found.id].grid, 0)
            run.add_to(found, _travelled(found) | metrics, words)  # last: it tells that all is done

        for found in passed_over:
            run.add_to(found, {}, {"pti.unsampled": UNSAMPLED})
        trained = {found.id: found for found in runs}
        for name in trained.keys() & known.keys():
            log(trained[name])
        names = [name for group, _ in todo for name in group]
        measuring = measure_all(meter, [case for _, case in todo])
        followed = tqdm(measuring, "evaluating", len(names), unit="character")
        for name, measured in zip(names, followed, strict=True):
            known[name] = measured
            keep(run, name, measured)
            if name in trained:
                log(trained[name])
        return run.id


def _travelled(run: Found) -> dict[str, float]:
    """Distances of a training, to be told once more as those of its weights."""
    return {key: run.metrics[key] for key in TRAVELLED if key in run.metrics}


def _missing(
    runs: Sequence[Found], known: Mapping[str, Measured], base: BaseModel
) -> list[tuple[list[str], Case]]:
    """What is still to be measured, by name: the references first, then runs of equal shape."""
    todo = []
    if CLASS not in known:
        todo.append(([CLASS], Case(class_word(runs[0].tags["pti.initializer"]))))
    around = {r.tags["pti.pivot"]: r for r in runs if r.tags["pti.step"] == "finetune"}
    pivots = {name: run for name, run in around.items() if name not in known}
    if pivots:
        todo.append(([*pivots], Case(_load([*pivots.values()], base).who)))
    waiting = sorted((r for r in runs if r.id not in known), key=_shape)
    for _, group in groupby(waiting, _shape):
        alike = list(group)
        todo.append(([r.id for r in alike], _load(alike, base)))
    return todo


def _load(runs: Sequence[Found], base: BaseModel) -> Case:
    """Pivots and, for tuned runs, LoRAs of runs of equal shape."""
    if any(run.tags["pti.base_fingerprint"] != base.fingerprint for run in runs):
        name = runs[0].tags["pti.base"]
        raise ModelError("E404", f"these runs were trained on base '{name}'", f"use --base {name}")
    pivots, states = [], []
    config: dict[str, object] | None = None
    for run in runs:
        with TemporaryDirectory() as folder:
            pivots.append(load_pivot(fetch(run, f"pivot/{PIVOT_FILE}", Path(folder))))
            if run.tags["pti.step"] == "finetune":
                state, config = base.load_lora(fetch(run, f"lora/{LORA_FILE}", Path(folder)))
                states.append(state)
    vectors = torch.stack([pivot.embedding for pivot in pivots])
    return Case(Characters(pivots[0].token, vectors), tuple(states), config)


def _shape(run: Found) -> tuple[str, ...]:
    """Return what runs must have in common to be drawn in one batch."""
    return tuple(run.params.get(key, "") for key in ("vectors", "rank", "alpha", "regularizer"))
