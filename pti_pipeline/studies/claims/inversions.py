"""The cells of inversions: every learning rate in one pass."""

from __future__ import annotations

from collections.abc import Sequence

from pti_pipeline.batches import prepare
from pti_pipeline.characters import Characters
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import placeholder_tokens
from pti_pipeline.probes import encode_probe, read
from pti_pipeline.settings import InvertSettings
from pti_pipeline.studies.claims.bench import TOKEN, Bench, losses, point, sampled
from pti_pipeline.studies.claims.cells import Result
from pti_pipeline.watching import probe_steps

INVERSION_LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
PIVOT_LRS = (1e-3, 3e-3)
"""Of inversions that only serve a tuning."""
GAIN = 0.9
"""Share of the inversion's gain that the pivot of a tuning must have."""


def invert_cell(bench: Bench) -> Result:
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
                rows.append(point(bench, moment.step, moment.metrics, k, now, before))
    alive = moment.alive.tolist()
    runs, references = [], {}
    if cell.sampled:
        references["class"] = sampled(bench, None)
    for k, settings in enumerate(experiments):
        learned = vectors[k : k + 1].detach()
        run: Result = {"lr": settings.lr, "diverged": not alive[k], "vectors": learned[0].tolist()}
        if alive[k] and cell.sampled:
            run["samples"] = sampled(bench, Characters(TOKEN, learned))
        runs.append(run | {"probes": points[k]})
    return {"before": losses(before), "reference": references, "runs": runs}


def chosen_pivot(result: Result) -> list[list[float]]:
    """Vectors of the nearest inversion that has most of the gain on twins."""
    start = _mean(result["before"]["subject"])
    runs = [run for run in result["runs"] if not run["diverged"]]
    gains = [start - _mean(run["probes"][-1]["losses"]["subject"]) for run in runs]
    top = max(gains)
    nearest = next(i for i, gain in enumerate(gains) if gain >= GAIN * top or top <= 0)
    vectors: list[list[float]] = runs[nearest]["vectors"]
    return vectors


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
