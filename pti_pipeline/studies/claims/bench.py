"""What every cell's computation shares: its subject, what is read of it, and its samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from pti_pipeline.characters import PLAIN, Characters, class_word, draw
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.probes import FAMILIES, Probe, Reading, build_probe
from pti_pipeline.settings import SampleSettings
from pti_pipeline.steps.world_pictures import save_pictures
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.effort import Effort
from pti_pipeline.studies.claims.prompts import PROMPTS, read_samples
from pti_pipeline.twins import make_twins
from pti_pipeline.watching import function_distance
from pti_pipeline.world.reader import load_reader
from pti_pipeline.world.render import render
from pti_pipeline.world.subjects import views

TOKEN = "<character>"
BLOCK = 1000
"""Seeds of samples start at this times the cell's seed."""
Samples = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Factors read from plain samples, and from those of the edit prompts."""


@dataclass(frozen=True)
class Bench:
    """What every computation of a cell needs."""

    cell: Cell
    base: BaseModel
    subject: Subject
    probe: Probe
    effort: Effort


@lru_cache(maxsize=1)
def _base() -> BaseModel:
    return load("world", "cpu")


def prepare_bench(cell: Cell, effort: Effort) -> Bench:
    """Render a cell's training pictures and their twins, and fix its probe."""
    base, who = _base(), cell.character
    with TemporaryDirectory() as folder:
        factors = views(who, cell.pictures, constant=cell.constant)
        save_pictures(render(factors, base.resolution), factors, Path(folder))
        subject = load_subject(Path(folder), base.resolution)
        twins = make_twins(subject, Path(folder))
    families = FAMILIES[:1] if cell.kind == "inversion" else FAMILIES
    probe = build_probe(base, subject, twins, TOKEN, cell.vectors, who.species, families)
    return Bench(cell, base, subject, probe, effort)


def sampled(bench: Bench, who: Characters | None) -> Result:
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


def point(
    bench: Bench,
    step: int,
    metrics: dict[str, Tensor],
    k: int,
    now: Reading,
    before: Reading,
) -> Result:
    """Distances, and losses on pictures and twins, of experiment ``k`` at a step."""
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
        "losses": losses(now),
    }


def losses(reading: Reading) -> dict[str, list[float]]:
    """Loss of each picture and twin, by kind."""
    return {kind: values.tolist() for kind, values in reading.losses.items()}
