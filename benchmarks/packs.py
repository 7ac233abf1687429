"""Packs against separate runs, on the embedded model."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import ours
from benchmarks.timing import Row, interleaved, ratio
from pti_pipeline import distance, lora
from pti_pipeline.batches import prepare
from pti_pipeline.characters import Characters, draw
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.inversion import Moment
from pti_pipeline.settings import TARGETS, SampleSettings
from pti_pipeline.tracking.members import EVERY, Course, open_runs, recorded
from pti_pipeline.workers import environment

EXPERIMENTS = 8
IMAGES = Path(__file__).parents[1] / "examples" / "mochi"
RATES = [1e-4 * (k + 1) for k in range(EXPERIMENTS)]


def rows(runs: int) -> Iterator[Row]:
    """Measure every row of this file."""
    base = load("world", "cpu")
    subject = load_subject(IMAGES, base.resolution)
    for batch, goal, aim in ((1, 2.0, 3.0), (4, 1.3, 1.8)):
        yield _training(base, subject, "invert", batch, goal, aim, runs)
        yield _training(base, subject, "finetune", batch, goal, aim, runs)
    for every, goal in ((1, 1.8), (4, 1.25)):
        yield _regularized(base, subject, RATES[:1], every, goal, runs)
    for every in (1, 4):  # where a step is all arithmetic, twice the rows are twice the time
        yield _regularized(base, subject, RATES, every, None, runs // 4)
    yield _grids(base, runs)
    yield _bookkeeping(base, subject, runs)


def _training(
    base: BaseModel, subject: Subject, stage: str, batch: int, goal: float, aim: float, runs: int
) -> Row:
    material = prepare(base, subject, [ours.TOKEN])

    def steps(rates: list[float]) -> Iterator[Moment]:
        # a base of its own: adapters of one denoiser exclude each other
        return ours.STAGES[stage](load("world", "cpu"), material, rates, batch)

    apart, pack = [steps([rate]) for rate in RATES], steps(RATES)
    cases = {"apart": lambda: [next(one) for one in apart], "pack": lambda: next(pack)}
    seconds = interleaved(cases, runs)
    value, spread = ratio(seconds["apart"], seconds["pack"])
    name = f"{EXPERIMENTS} separate {stage} steps / one pack of {EXPERIMENTS}, batch {batch}"
    return Row(name, value, goal, aim, spread, runs)


def _regularized(
    base: BaseModel,
    subject: Subject,
    rates: list[float],
    every: int,
    goal: float | None,
    runs: int,
) -> Row:
    """Steps of tunings under locality with its bank, over those of as many without."""
    material = prepare(base, subject, [ours.TOKEN])
    plain = ours.tuning(load("world", "cpu"), material, rates, 4)
    settings = {"regularizer": "locality", "reg_every": every}
    held = ours.tuning(load("world", "cpu"), material, rates, 4, **settings)

    def steps(pack: Iterator[Moment]) -> None:
        for _ in range(every):
            next(pack)

    cases = {"held": lambda: steps(held), "plain": lambda: steps(plain)}
    seconds = interleaved(cases, runs)
    value, spread = ratio(seconds["held"], seconds["plain"])
    when = "every step" if every == 1 else f"every {every}th step"
    who = "" if len(rates) == 1 else f", pack of {len(rates)}"
    name = f"step with locality from its bank, {when} / without, batch 4{who}"
    return Row(name, value, goal, None, spread, runs, share=True)


def _grids(base: BaseModel, runs: int) -> Row:
    row = base.initializer_row(ours.INITIALIZER).expand(EXPERIMENTS, 1, -1)
    how, turns = SampleSettings(), max(3, runs // 8)

    def one_by_one() -> None:
        for k in range(EXPERIMENTS):
            draw(base, Characters(ours.TOKEN, row[k : k + 1]), ["a photo of {}"], [0], how)

    def together() -> None:
        draw(base, Characters(ours.TOKEN, row), ["a photo of {}"], [0], how)

    seconds = interleaved({"apart": one_by_one, "together": together}, turns, warm=1)
    value, spread = ratio(seconds["apart"], seconds["together"])
    name = f"grids of {EXPERIMENTS} experiments at one image each, one by one / together"
    return Row(name, value, 2.0, 3.0, spread, turns)


def _bookkeeping(base: BaseModel, subject: Subject, runs: int) -> Row:
    """Distances, norms and logging of a tuning, all at every step, as a share of it."""
    material = prepare(base, subject, [ours.TOKEN])
    pack = ours.tuning(load("world", "cpu"), material, RATES, 4)
    moments = [next(pack) for _ in range(EVERY)]
    layers = list(_adapter().layers.values())
    downs, ups = [la.down for la in layers], [la.up for la in layers]
    before = distance.by_shape(downs, ups)

    def distances() -> None:
        for _ in range(EVERY):
            now = distance.by_shape(downs, ups)
            path = distance.lora_step_norm(now, before, 1.0)
            distance.derived(distance.lora_delta_norm(now, 1.0), path, path, 1000)

    def steps() -> None:
        for _ in range(EVERY):
            next(pack)

    names, turns = [f"bench {k}" for k in range(EXPERIMENTS)], max(3, runs // 8)
    tags = [{"pti.step": "bench"}] * EXPERIMENTS
    with store(), open_runs(names, [{}] * EXPERIMENTS, tags, False) as opened:

        def logging() -> None:
            for _ in recorded(opened, moments, Course({}, {})):
                pass
            for run in opened:  # the sender's work is of this too
                run.wait()

        cases = {"distances": distances, "logging": logging, "steps": steps}
        seconds = interleaved(cases, turns, warm=1)
    kept = [a + b for a, b in zip(seconds["distances"], seconds["logging"], strict=True)]
    # the distances are part of the steps, logging comes on top
    whole = [a + b for a, b in zip(seconds["steps"], seconds["logging"], strict=True)]
    value, spread = ratio(kept, whole)
    name = f"distances, norms and logging at every step / the step, pack of {EXPERIMENTS}, batch 4"
    parts = ", ".join(
        f"{k} {statistics.median(v) / EVERY * 1e3:.2f} ms" for k, v in seconds.items()
    )
    return Row(name, value, 0.02, 0.01, spread, turns, share=True, note=parts)


def _adapter() -> lora.Adapter:
    base = load("world", "cpu")
    return lora.attach(base.denoiser, ours.RANK, float(ours.RANK), TARGETS, [0] * EXPERIMENTS)


@contextmanager
def store() -> Iterator[None]:
    """Keep runs in a store that is thrown away."""
    with TemporaryDirectory() as folder:
        place = f"sqlite:///{folder}/mlflow.db"
        with environment("MLFLOW_TRACKING_URI", place):
            yield
