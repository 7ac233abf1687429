"""The note's last claim: a regularizer lets a tuning go farther before it learns positions."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Compared:
    """The finals' sweeps and their limits, to be compared in pairs of equal subject and seed."""

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

    def less(
        self,
        arm: str,
        other: str,
        value: Callable[[Limit], float],
        kept: Collection[Cell] | None = None,
    ) -> Estimate:
        """Value of an arm less that of another, of all of the arm's sweeps or of those kept."""
        pairs = self.pairs(arm, other)
        some = {c: r for c, r in self.of(arm).items() if kept is None or c in kept}
        groups = by_subject(some, lambda c, _: value(pairs[c][0]) - value(pairs[c][1]))
        return pooled(groups, f"locality/{arm}")

    def times(self, arm: str, other: str, value: Callable[[Limit], float]) -> Estimate:
        """Value of an arm over that of another, in decades."""
        return self.less(arm, other, lambda at: float(np.log10(value(at))))

    def farther(self, arm: str, other: str, value: Callable[[Limit], float]) -> Estimate:
        """The same of where the limits are, as far as these are known."""
        known = self.ordered(arm, other)
        return self.less(arm, other, lambda at: float(np.log10(value(at))), known)


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
        farther = sweeps.farther(name, "none", _lr)
        better = sweeps.less(name, "none", _appearance)
        known = len({cell.subject for cell in sweeps.ordered(name, "none")})
        decisive = known >= FEWEST and farther.low >= np.log10(DECISIVE)
        ends = [sweeps.limits[c].censored for c in sweeps.of(name)]
        held = name not in CONTROLS
        yield Verdict(
            f"regularizer-{name}" if held else name,
            f"With {name} a tuning may learn faster at an equal leak, or shows more of the "
            "character at its limit.",
            said(
                decisive or better.low > 0,
                known >= FEWEST and farther.high < np.log10(DECISIVE) and better.high <= 0,
            ),
            "learning rate at the limit, over that without a regularizer",
            power(farther),
            *counts(sweeps.of(name, "none")),
            group="locality",
            details={
                "weight": sweeps.weights[name],
                "subjects_with_known_limits": known,
                "limits_beyond_the_sweep": float(np.mean([end > 0 for end in ends])),
                "limits_before_the_sweep": float(np.mean([end < 0 for end in ends])),
                "appearance_at_the_limit": better,
                "editability_at_the_limit": sweeps.less(name, "none", lambda at: at.editability),
                "limit_distance_ratio": power(sweeps.farther(name, "none", lambda at: at.distance)),
                "drift_on_other_prompts_ratio": power(
                    sweeps.times(name, "none", lambda at: at.drift)
                ),
                "hypervolume": sweeps.less(name, "none", _hypervolume),
                **(_beyond_half(sweeps, name) if held else {}),
            },
        )


def _beyond_half(sweeps: Compared, name: str) -> dict[str, Estimate]:
    """What an arm does beyond the control that sees as many pictures a step."""
    return {
        "learning_rate_over_that_of_half_the_batch": power(sweeps.farther(name, HALF, _lr)),
        "appearance_less_that_of_half_the_batch": sweeps.less(name, HALF, _appearance),
        "hypervolume_less_that_of_half_the_batch": sweeps.less(name, HALF, _hypervolume),
    }


def best_arm(evidence: Evidence) -> Iterator[Verdict]:
    """Which arm is worth most, none among them, and by how much.

    The verdict is of sweeps that the screen, which chose the weights, has not seen. It is of the
    two best of several, and so an invitation to look again rather than a test.
    """
    if (sweeps := compared(evidence)) is None:
        return
    worth = {
        name: float(np.mean([sweeps.limits[cell].hypervolume for cell in sweeps.of(name)]))
        for name in sweeps.weights
        if name not in CONTROLS
    }
    best, second, *_ = sorted(worth, key=lambda name: -worth[name])
    others = [name for name in sweeps.weights if name != best]
    fresh = Compared({c: r for c, r in sweeps.cells.items() if not _screened(c)}, sweeps.limits)
    ahead = fresh.less(best, second, _hypervolume)
    yield Verdict(
        "best-arm",
        f"{best} has the largest hypervolume of appearance, editability and 1 - leak.",
        said(ahead.low > 0, ahead.high < 0),
        f"hypervolume, less that of {second}, the next",
        ahead,
        *counts(fresh.of(best, second)),
        group="locality",
        details={
            **{f"less_that_of_{name}": sweeps.less(best, name, _hypervolume) for name in others},
        },
    )


def _screened(cell: Cell) -> bool:
    return cell.subject in SCREENED and cell.seed == SEEDS[0]


def _lr(at: Limit) -> float:
    return at.lr


def _appearance(at: Limit) -> float:
    return at.appearance


def _hypervolume(at: Limit) -> float:
    return at.hypervolume
