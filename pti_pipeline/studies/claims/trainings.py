"""What a cell computes: inversions and tunings on the embedded world, followed by probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.characters import Characters, class_word, draw
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.distance import by_shape, lora_delta_norm
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot, placeholder_tokens
from pti_pipeline.probes import (
    FAMILIES,
    PLAIN,
    Probe,
    Reading,
    build_probe,
    encode_probe,
    function_distance,
    probe_steps,
    read,
)
from pti_pipeline.settings import (
    STEPS,
    TARGETS,
    FinetuneSettings,
    InvertSettings,
    SampleSettings,
)
from pti_pipeline.steps.world_pictures import save_pictures
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.prompts import PROMPTS, read_samples
from pti_pipeline.tuning import finetune
from pti_pipeline.twins import twin_pictures
from pti_pipeline.world.reader import load_reader
from pti_pipeline.world.render import render
from pti_pipeline.world.subjects import views

TOKEN = "<character>"
INVERSION_LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
PIVOT_LRS = (1e-3, 3e-3)
"""Of inversions that only serve a tuning."""
TUNING_LR = 1e-3
"""Of the one run whose checkpoints are the curve."""
SWEEP_LRS = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)
GAIN = 0.9
"""Share of the inversion's gain that the pivot of a tuning must have."""
SAMPLED = (2.0, 4.0, 7.0, 11.0, 15.0, 20.0)
"""Distances at which a followed run's samples are drawn: the checkpoints nearest to these."""
SCALES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.25)
"""Of the last LoRA, for the path that costs no training."""
BLOCK = 1000
"""Seeds of samples start at this times the cell's seed."""


Samples = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Factors read from plain samples, and from those of the edit prompts."""


@dataclass(frozen=True)
class Effort:
    """How much is done for a cell.

    Attributes
    ----------
    steps : int
        Of every training.
    probes : dict of str to int
        Steps at which twins are read and functions compared, by kind of cell.
    samples : dict of str to int
        Plain samples of each point, by kind of cell.
    edit_seeds : int
        Samples of each edit prompt.
    rates : int
        Learning rates of a sweep.
    how : SampleSettings
    """

    steps: int
    probes: Mapping[str, int]
    samples: Mapping[str, int]
    edit_seeds: int
    rates: int
    how: SampleSettings


FULL = Effort(
    STEPS,
    {"inversion": 12, "tuning": 24, "sweep": 12},
    {"inversion": 64, "tuning": 128, "sweep": 128},
    edit_seeds=4,
    rates=6,
    how=SampleSettings(),
)
QUICK = Effort(
    8,
    {"inversion": 2, "tuning": 3, "sweep": 2},
    {"inversion": 8, "tuning": 8, "sweep": 8},
    edit_seeds=1,
    rates=2,
    how=SampleSettings(steps=3),
)
"""Shows that it runs; decides nothing."""


@dataclass(frozen=True)
class Bench:
    """What every computation of a cell needs."""

    cell: Cell
    base: BaseModel
    subject: Subject
    probe: Probe
    effort: Effort


def compute(cell: Cell, pivot: Sequence[Sequence[float]] | None, effort: Effort = FULL) -> Result:
    """Compute a cell.

    Parameters
    ----------
    cell : Cell
    pivot : sequence of vectors, optional
        Of a tuning around a pivot: what its inversion's cell chose.
    effort : Effort
    """
    torch.set_num_threads(1)
    bench = _bench(cell, effort)
    if cell.kind == "inversion":
        return _inversion(bench)
    vectors = torch.tensor(pivot) if pivot is not None else None
    if vectors is None:
        vectors = bench.base.initializer_row(cell.character.species).expand(cell.vectors, -1)
    return _tuning(bench, vectors.clone())


@lru_cache(maxsize=1)
def _base() -> BaseModel:
    return load("world", "cpu")


def _bench(cell: Cell, effort: Effort) -> Bench:
    base, who = _base(), cell.character
    with TemporaryDirectory() as folder:
        factors = views(who, cell.pictures, constant=cell.constant)
        save_pictures(render(factors, base.resolution), factors, Path(folder))
        subject = load_subject(Path(folder), base.resolution)
        twins = twin_pictures(subject, Path(folder))
    families = FAMILIES[:1] if cell.kind == "inversion" else FAMILIES
    probe = build_probe(base, subject, twins, TOKEN, cell.vectors, who.species, families)
    return Bench(cell, base, subject, probe, effort)


def _inversion(bench: Bench) -> Result:
    """Invert at every learning rate in one pass; measure each at its end and along the way."""
    base, cell = bench.base, bench.cell
    experiments = [
        InvertSettings(lr=lr, steps=bench.effort.steps, seed=cell.seed, vectors=cell.vectors)
        for lr in (INVERSION_LRS if cell.sampled else PIVOT_LRS)[: bench.effort.rates]
    ]
    row = base.initializer_row(cell.character.species)
    vectors = row.expand(len(experiments), cell.vectors, -1).clone()
    material = prepare(base, bench.subject, placeholder_tokens(TOKEN, cell.vectors))
    before = read(base, bench.probe, encode_probe(base, bench.probe, None))
    marks, points = (
        probe_steps(bench.effort.steps, bench.effort.probes[cell.kind]),
        [list[Result]() for _ in experiments],
    )
    for moment in invert(base, material, vectors, experiments):
        if moment.step in marks:
            for k, rows in enumerate(points):
                states = encode_probe(base, bench.probe, vectors[k])
                now = read(base, bench.probe, states)
                rows.append(_point(bench, moment.step, moment.metrics, k, now, before))
    alive = moment.alive.tolist()
    runs, references = [], {}
    if cell.sampled:
        references["class"] = _sampled(bench, None)
    for k, settings in enumerate(experiments):
        learned = vectors[k : k + 1].detach()
        run: Result = {"lr": settings.lr, "diverged": not alive[k], "vectors": learned[0].tolist()}
        if alive[k] and cell.sampled:
            run["samples"] = _sampled(bench, Characters(TOKEN, learned))
        runs.append(run | {"probes": points[k]})
    return {"before": _losses(before), "reference": references, "runs": runs}


def chosen_pivot(result: Result) -> list[list[float]]:
    """Vectors of the nearest inversion that has most of the gain on all-other twins."""
    start = _mean(result["before"]["all"])
    runs = [run for run in result["runs"] if not run["diverged"]]
    gains = [start - _mean(run["probes"][-1]["losses"]["all"]) for run in runs]
    nearest = next(i for i, gain in enumerate(gains) if gain >= GAIN * max(gains))
    vectors: list[list[float]] = runs[nearest]["vectors"]
    return vectors


def _tuning(bench: Bench, vectors: Tensor) -> Result:
    """Tune at one rate and follow its checkpoints, or at several and look at each at its end."""
    base, cell = bench.base, bench.cell
    lrs = (TUNING_LR,) if cell.kind == "tuning" else SWEEP_LRS[: bench.effort.rates]
    experiments = [FinetuneSettings(lr=lr, steps=bench.effort.steps, seed=cell.seed) for lr in lrs]
    pivot = Pivot(TOKEN, cell.character.species, vectors, vectors)
    who = Characters(TOKEN, vectors[None])
    material = prepare(base, bench.subject, placeholder_tokens(TOKEN, len(vectors)))
    states = encode_probe(base, bench.probe, vectors)
    before = read(base, bench.probe, states)
    references = {}
    if cell.sampled:
        references["class"] = _sampled(bench, None)
        references["pivot"] = _sampled(bench, who)
    first, seeds = experiments[0], [e.seed for e in experiments]
    adapter = lora.attach(base.denoiser, first.rank, first.alpha, TARGETS, seeds)
    try:
        marks, points = (
            probe_steps(bench.effort.steps, bench.effort.probes[cell.kind]),
            [list[Result]() for _ in experiments],
        )
        kept: list[tuple[int, float, list[Tensor]]] = []
        pivots = [pivot] * len(experiments)
        for moment in finetune(base, adapter, material, pivots, experiments):
            if moment.step in marks:
                for k, rows in enumerate(points):
                    with lora.only(adapter, slice(k, k + 1)):
                        now = read(base, bench.probe, states)
                    rows.append(_point(bench, moment.step, moment.metrics, k, now, before))
                copies = [p.detach().clone() for p in adapter.parameters]
                kept.append((moment.step, points[0][-1]["distance"], copies))
        alive, last = moment.alive.tolist(), kept[-1][2]
        runs: list[Result] = [
            {"lr": e.lr, "diverged": not alive[k], "probes": points[k]}
            for k, e in enumerate(experiments)
        ]
        if cell.kind == "tuning":
            runs[0]["scaled"] = _scaled(bench, adapter, last, states)
            if cell.sampled:
                runs[0]["samples"] = _followed(bench, adapter, kept, who)
        elif cell.sampled:
            _restore(adapter, last)
            for k, run in enumerate(runs):
                if alive[k]:
                    with lora.only(adapter, slice(k, k + 1)):
                        run["samples"] = _sampled(bench, who)
    finally:
        lora.detach(adapter)
    return {"before": _losses(before), "reference": references, "runs": runs}


def _followed(
    bench: Bench,
    adapter: lora.Adapter,
    kept: Sequence[tuple[int, float, list[Tensor]]],
    who: Characters,
) -> list[Result]:
    """Samples at the checkpoints nearest to :data:`SAMPLED` (in log distance)."""
    chosen = {
        min(range(len(kept)), key=lambda i: abs(kept[i][1] / want - 1) + abs(want / kept[i][1] - 1))
        for want in SAMPLED
    }
    rows = []
    for step, distance, parameters in (kept[i] for i in sorted(chosen)):
        _restore(adapter, parameters)
        rows.append({"step": step, "distance": distance, **_sampled(bench, who)})
    return rows


def _scaled(
    bench: Bench, adapter: lora.Adapter, last: Sequence[Tensor], states: Tensor
) -> list[Result]:
    """Probe the last LoRA at other scales (Wortsman et al. 2022)."""
    rows = []
    for scale in SCALES:
        _restore(adapter, last)
        layers = list(adapter.layers.values())
        for layer in layers:
            layer.up.detach().mul_(scale)
        now = read(bench.base, bench.probe, states)
        downs, ups = [la.down.detach() for la in layers], [la.up.detach() for la in layers]
        travelled = lora_delta_norm(by_shape(downs, ups), layers[0].scale)
        rows.append({"scale": scale, "distance": float(travelled[0]), "losses": _losses(now)})
    _restore(adapter, last)
    return rows


@torch.no_grad()
def _restore(adapter: lora.Adapter, parameters: Sequence[Tensor]) -> None:
    for now, then in zip(adapter.parameters, parameters, strict=True):
        now.copy_(then)


def _sampled(bench: Bench, who: Characters | None) -> Result:
    """Draw the plain prompt and every edit prompt, and read what they show.

    ``who`` is None for the class word, whose samples cells of one subject and seed share.
    """
    cell, effort = bench.cell, bench.effort
    size = effort.samples[cell.kind], effort.edit_seeds, effort.how
    if who is None:
        plain, edited = _class_word_samples(cell.character.species, cell.seed, *size)
    else:
        plain, edited = _samples(who, cell.seed, *size)
    training = load_reader().read(bench.subject.images)
    return read_samples(plain, edited, training, effort.edit_seeds)


@lru_cache
def _class_word_samples(
    word: str, seed: int, samples: int, edits: int, how: SampleSettings
) -> Samples:
    return _samples(class_word(word), seed, samples, edits, how)


def _samples(who: Characters, seed: int, samples: int, edits: int, how: SampleSettings) -> Samples:
    base, reader, first = _base(), load_reader(), BLOCK * seed
    seeds = range(first, first + samples)
    plain = draw(base, who, [PLAIN] * samples, seeds, how)[0]
    prompts = [text for text in PROMPTS for _ in range(edits)]
    edited = draw(base, who, prompts, [*range(first, first + edits)] * len(PROMPTS), how)[0]
    return reader.read(plain), reader.read(edited)


def _point(
    bench: Bench,
    step: int,
    metrics: dict[str, Tensor],
    k: int,
    now: Reading,
    before: Reading,
) -> Result:
    values = {
        "distance": metrics["distance/delta_norm"],
        "path": metrics["distance/path"],
        "loss": metrics["train/loss"],
    }
    gap = function_distance(bench.probe, now, before)
    short = {key.removeprefix("distance/"): value for key, value in gap.items()}
    return {
        "step": step,
        **{name: float(value[k]) for name, value in values.items()},
        **short,
        "losses": _losses(now),
    }


def _losses(reading: Reading) -> dict[str, list[float]]:
    return {kind: values.tolist() for kind, values in reading.losses.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
