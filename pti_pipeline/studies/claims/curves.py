"""Curves of cells: gains of each factor, obedience and leak along the distance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pti_pipeline import leak
from pti_pipeline.inference import onset
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.world.factors import Factors
from pti_pipeline.world.subjects import views

Values = NDArray[np.floating]

FACTORS = ("appearance", "scene", "position", "pose")
"""What a model can learn of a picture, and what twins tell apart."""
ONSET = 0.1
"""Share of its largest gain at which a factor counts as being learnt."""


def distances(rows: Sequence[Result]) -> Values:
    """Distance of each row, shape (n,)."""
    return np.array([row["distance"] for row in rows])


def gain(result: Result, rows: Sequence[Result], factor: str) -> Values:
    """Gain of a factor at each row, as a share of the base's loss.

    That of appearance is on twins in which all else is another, on the character's own latents;
    that of others is what the training pictures gained beyond twins in which only this is another.
    """
    before = {kind: np.mean(losses) for kind, losses in result["before"].items()}

    def of(kind: str, scale: str) -> Values:
        now = np.array([np.mean(row["losses"][kind]) for row in rows])
        return (before[kind] - now) / before[scale]

    if factor == "appearance":
        return of("subject", "subject")
    return of("train", "train") - of(factor, "train")


def obedience(sample: Result, kinds: Sequence[str]) -> float:
    """Mean share of samples that obey, over kinds of prompts."""
    return float(np.mean([sample["obeyed"][kind] for kind in kinds]))


def positions(sample: Result) -> Values:
    """Positions of the plain samples in fractions of the side, shape (n, 2)."""
    return np.array([sample["x"], sample["y"]]).T / 1000


def onset_of(result: Result, factor: str, share: float) -> float:
    """Distance at which a followed run's gain of a factor reaches a share of its largest."""
    rows = result["runs"][0]["probes"]
    return onset(distances(rows), gain(result, rows, factor), share)


def ends(result: Result) -> list[Result]:
    """Runs of a cell that did not diverge."""
    return [run for run in result["runs"] if not run["diverged"]]


def followed(result: Result) -> list[Result]:
    """Samples of a followed run, by increasing distance."""
    rows: list[Result] = result["runs"][0]["samples"]
    return rows


def nearness(sample: Result, scale: Result, training: Values) -> Values:
    """Distance of each sample to the nearest training position, whitened by ``scale``'s."""
    units = positions(scale)
    return leak.nearest(leak.whiten(positions(sample), units), leak.whiten(training, units))


def training_factors(cell: Cell) -> Factors:
    """Factors of a cell's training pictures."""
    return views(cell.character, cell.pictures, constant=cell.constant)


@lru_cache
def training_positions(cell: Cell) -> Values:
    """Where the character stands in the training pictures, in fractions of the side; (n, 2)."""
    factors = training_factors(cell)
    return np.stack([factors.x, factors.y], 1)
