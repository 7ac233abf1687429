"""The note's last claim: a regularizer lets a tuning go farther before it learns positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from pti_pipeline.inference import Estimate
from pti_pipeline.studies.claims.arms import CONTROLS
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.comparison_grid import SCREENED, chosen, finals
from pti_pipeline.studies.claims.evidence import Evidence, by_subject
from pti_pipeline.studies.claims.grid import SEEDS
from pti_pipeline.studies.claims.limits import Limit, limit_of
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, power, said

DECISIVE = 2.0
"""Times by which the learning rate has to grow at an equal bound of the leak."""
FEWEST = 3
"""Subjects of which limits must be known, at least, for a verdict on how far one may go."""
HALF = next(iter(CONTROLS))
FARTHER = {"learning_rate": "lr", "distance": "distance"}
"""Where a limit is, compared as ratios, as far as these are known."""
TIMES = {"drift": "drift"}
"""What is compared as a ratio."""
LESS = {"appearance": "appearance", "editability": "editability", "hypervolume": "hypervolume"}
"""What is compared as a difference."""


@dataclass(frozen=True)
class Compared:
    """The finals' sweeps and their limits, to be compared in pairs of equal subject and seed.

    Values are attributes of :class:`Limit`.
    """

    cells: dict[Cell, Result]
    limits: dict[Cell, Limit]

    @property
    def weights(self) -> dict[str, float]:
        """Of the arms, none among them, and controls."""
        return {cell.arm: cell.weight for cell in self.cells}

    def of(self, *arms: str) -> dict[Cell, Result]:
        """Sweeps of some arms."""
        return {cell: result for cell, result in self.cells.items() if cell.arm in arms}

    def pairs(self, arm: str, other: str) -> dict[Cell, tuple[Limit, Limit]]:
        """Limits of an arm and of another."""
        theirs = {(c.subject, c.seed): self.limits[c] for c in self.of(other)}
        return {c: (self.limits[c], theirs[c.subject, c.seed]) for c in self.of(arm)}

    def ordered(self, arm: str, other: str) -> set[Cell]:
        """Sweeps of an arm of which one knows whether their limit is farther than the other's.

        Of two that both begin beyond the bound, or never reach it, one does not.
        """
        pairs = self.pairs(arm, other).items()
        return {c for c, (a, b) in pairs if not a.censored or a.censored != b.censored}

    def mean(self, arm: str, value: str) -> Estimate:
        """Mean of an arm's value."""
        return self._mean(arm, lambda c: getattr(self.limits[c], value))

    def geometric_mean(self, arm: str, value: str) -> Estimate:
        """The same of its logarithm, turned back."""
        return power(self._mean(arm, lambda c: np.log10(getattr(self.limits[c], value))))

    def less(self, arm: str, other: str, value: str) -> Estimate:
        """Value of an arm less that of another."""
        pairs = self.pairs(arm, other)
        return self._mean(arm, lambda c: getattr(pairs[c][0], value) - getattr(pairs[c][1], value))

    def times(
        self, arm: str, other: str, value: str, kept: Collection[Cell] | None = None
    ) -> Estimate:
        """Value of an arm over that of another, of all of the arm's sweeps or of those kept."""
        pairs = self.pairs(arm, other)

        def decades(cell: Cell) -> float:
            if kept is not None and cell not in kept:
                return math.nan
            own, theirs = (getattr(at, value) for at in pairs[cell])
            return float(np.log10(own / theirs))

        return power(self._mean(arm, decades))

    def farther(self, arm: str, other: str, value: str = "lr") -> Estimate:
        """The same of where the limits are, as far as these are known."""
        return self.times(arm, other, value, self.ordered(arm, other))

    def _mean(self, arm: str, value: Callable[[Cell], float]) -> Estimate:
        """Mean of a number of an arm's sweeps, without those that have none."""
        return pooled(by_subject(self.of(arm), lambda c, _: value(c)), f"locality/{arm}")


def compared(evidence: Evidence) -> Compared | None:
    """Take the finals out of the evidence; None before they are whole."""
    if (best := chosen(evidence.cells)) is None:
        return None
    wanted = [cell for cell in finals(best) if cell.arm]
    if any(cell not in evidence.cells for cell in wanted):
        return None
    cells = {cell: evidence.cells[cell] for cell in wanted}
    return Compared(cells, {cell: limit_of(cell, result) for cell, result in cells.items()})


def locality(evidence: Evidence) -> Iterator[Verdict]:
    """The regularizers against none, each pair at equal subject, seed and compute."""
    if (sweeps := compared(evidence)) is None:
        return
    for name in [n for n in sweeps.weights if n != "none"]:
        farther, better = sweeps.farther(name, "none"), sweeps.less(name, "none", "appearance")
        known = len({cell.subject for cell in sweeps.ordered(name, "none")})
        decisive = known >= FEWEST and farther.low >= DECISIVE
        ends = [sweeps.limits[c].censored for c in sweeps.of(name)]
        yield Verdict(
            name if name in CONTROLS else f"regularizer-{name}",
            f"With {name} a tuning may learn faster at an equal leak, or shows more of the "
            "character at its limit.",
            said(
                decisive or better.low > 0,
                known >= FEWEST and farther.high < DECISIVE and better.high <= 0,
            ),
            "learning rate at the limit, over that without a regularizer",
            farther,
            *counts(sweeps.of(name, "none")),
            group="locality",
            details={
                "weight": sweeps.weights[name],
                "subjects_with_known_limits": known,
                "limits_beyond_the_sweep": float(np.mean([end > 0 for end in ends])),
                "limits_before_the_sweep": float(np.mean([end < 0 for end in ends])),
                **_values(sweeps, name),
                **{
                    key: value
                    for other in _references(name)
                    for key, value in _contrast(sweeps, name, other).items()
                },
            },
        )


def _references(name: str) -> Iterator[str]:
    """What an arm is held against.

    None, at equal compute; half the batch, which sees as many pictures a step; and near far, where
    another place is held as much.
    """
    yield "none"
    if name not in CONTROLS:
        yield HALF
    if name == "locality-near":
        yield "locality-far"


def _values(sweeps: Compared, name: str) -> dict[str, Estimate]:
    """Mean values at the limits."""
    placed = {key: sweeps.geometric_mean(name, value) for key, value in (FARTHER | TIMES).items()}
    return placed | {key: sweeps.mean(name, value) for key, value in LESS.items()}


def _contrast(sweeps: Compared, name: str, other: str) -> dict[str, Estimate]:
    """Values at the limits against those of another arm."""
    farther = {key: sweeps.farther(name, other, value) for key, value in FARTHER.items()}
    times = {key: sweeps.times(name, other, value) for key, value in TIMES.items()}
    less = {key: sweeps.less(name, other, value) for key, value in LESS.items()}
    return {
        **{f"{key}_over_that_of_{other}": ratio for key, ratio in (farther | times).items()},
        **{f"{key}_less_that_of_{other}": difference for key, difference in less.items()},
    }


def best_arm(evidence: Evidence) -> Iterator[Verdict]:
    """Which arm is worth most, none among them, and by how much.

    The verdict is of sweeps that the screen, which chose the weights, has not seen. It is of the
    two best of several, and so an invitation to look again rather than a test.
    """
    if (sweeps := compared(evidence)) is None:
        return
    worth = {
        name: sweeps.mean(name, "hypervolume").value
        for name in sweeps.weights
        if name not in CONTROLS
    }
    best, second, *_ = sorted(worth, key=lambda name: -worth[name])
    others = [name for name in sweeps.weights if name != best]
    fresh = Compared({c: r for c, r in sweeps.cells.items() if not _screened(c)}, sweeps.limits)
    ahead = fresh.less(best, second, "hypervolume")
    yield Verdict(
        "best-arm",
        f"{best} has the largest hypervolume of appearance, editability and freedom from leaks.",
        said(ahead.low > 0, ahead.high < 0),
        f"hypervolume, less that of {second}, the next",
        ahead,
        *counts(fresh.of(best, second)),
        group="locality",
        details={
            **{f"less_that_of_{n}": sweeps.less(best, n, "hypervolume") for n in others},
            **{f"{key}_of_none": value for key, value in _values(sweeps, "none").items()},
        },
    )


def _screened(cell: Cell) -> bool:
    return cell.subject in SCREENED and cell.seed == SEEDS[0]
