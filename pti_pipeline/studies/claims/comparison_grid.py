"""Which cells compare the regularizers: a screen of all, then finals of the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pti_pipeline.studies.claims.arms import ARMS, CONTROLS, FINALISTS
from pti_pipeline.studies.claims.cells import Cell, Result, read_cell
from pti_pipeline.studies.claims.grid import SEEDS, SUBJECTS
from pti_pipeline.studies.claims.limits import limit_of

SCREENED = SUBJECTS[:2]
Best = Mapping[str, float]
"""Weight of each arm of the finals."""


def screen() -> list[Cell]:
    """Every arm and weight, on two subjects at one seed."""
    return [
        Cell("sweep", subject, SEEDS[0], arm=name, weight=weight)
        for name, arm in ARMS.items()
        for weight in arm.weights
        for subject in SCREENED
    ]


def finals(best: Best) -> list[Cell]:
    """The arms of the finals at their best weights, controls, and baselines.

    All on all subjects and seeds. They learn more slowly than in the screen, most of which leaks at
    its lowest rate already.
    """
    controls = dict.fromkeys(CONTROLS, 1.0)
    return [*_slow_sweeps(best), *_slow_sweeps(controls), *baselines()]


def _slow_sweeps(arms: Best) -> list[Cell]:
    return [
        Cell("sweep", subject, seed, arm=name, weight=weight, rates="low")
        for seed in SEEDS
        for subject in SUBJECTS
        for name, weight in arms.items()
    ]


def baselines() -> list[Cell]:
    """What others do, on all subjects and seeds; plain inversions are in the note's own grid."""
    return [
        Cell(kind, subject, seed, vectors=vectors)
        for seed in SEEDS
        for subject in SUBJECTS
        for kind, vectors in (("dreambooth", 2), ("joint", 1))
    ]


def comparison_grid(folder: Path) -> list[Cell]:
    """Cells of the comparison: the screen, and once that is whole the finals that it leads to."""
    cells = screen()
    best = chosen({cell: result for cell in cells if (result := read_cell(folder, cell))})
    return cells if best is None else [*cells, *finals(best)]


def quick_comparison() -> list[Cell]:
    """One subject's tunings, without and with locality, and the baselines."""
    first = SUBJECTS[0], SEEDS[0]
    arms = [Cell("sweep", *first, arm=name, rates="low") for name in ("none", "locality-near")]
    return arms + baselines()[:2]


def chosen(cells: Mapping[Cell, Result]) -> Best | None:
    """Weights that the screen among some cells chooses; None before it is whole."""
    wanted = screen()
    if any(cell not in cells for cell in wanted):
        return None
    return best_weights({cell: cells[cell] for cell in wanted})


def best_weights(cells: Mapping[Cell, Result]) -> dict[str, float]:
    """Of each finalist, and of the best other arm, the weight of the largest hypervolume."""
    worth: dict[tuple[str, float], list[float]] = {}
    for cell, result in cells.items():
        worth.setdefault((cell.arm, cell.weight), []).append(limit_of(cell, result).hypervolume)
    means = {key: float(np.mean(values)) for key, values in worth.items()}

    def best_of(name: str) -> float:
        return max(ARMS[name].weights, key=lambda weight: means[name, weight])

    best = {name: best_of(name) for name in ARMS}
    others = [name for name in ARMS if name not in FINALISTS]
    other = max(others, key=lambda name: means[name, best[name]])
    return {name: best[name] for name in (*FINALISTS, other)}
