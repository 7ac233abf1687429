"""Claim 2: a light tuning has more of the character, and obeys as before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pti_pipeline import leak
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.curves import (
    followed,
    nearness,
    obedience,
    training_positions,
)
from pti_pipeline.studies.claims.evidence import Evidence, by_subject
from pti_pipeline.studies.claims.prompts import KINDS
from pti_pipeline.studies.claims.verdict import MARGIN, Verdict, counts, pooled, power, said


def light_tuning(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 2: the LoRA at the limit has more of the character than its pivot, and obeys."""
    cells = evidence.usual("tuning")
    limits = _limits(cells)
    usable = {c: r for c, r in cells.items() if limits[c.subject] >= 0}
    if not usable:
        return

    def at_limit(cell: Cell, result: Result) -> Result:
        return followed(result)[limits[cell.subject]]

    def distance(cell: Cell, result: Result) -> float:
        return float(np.log10(at_limit(cell, result)["distance"]))

    def appearance(cell: Cell, result: Result) -> float:
        return at_limit(cell, result)["appearance"] - result["reference"]["pivot"]["appearance"]

    def editability(cell: Cell, result: Result) -> float:
        pivot = obedience(result["reference"]["pivot"], list(KINDS))
        return obedience(at_limit(cell, result), list(KINDS)) - pivot

    gained = pooled(by_subject(usable, appearance), "appearance")
    kept = pooled(by_subject(usable, editability), "editability")
    yield Verdict(
        "light-tuning",
        "The LoRA at the limit has more of the character than its pivot, and is as editable.",
        said(gained.low > 0 and kept.low > -MARGIN, gained.high < 0 or kept.high < -MARGIN),
        "appearance gained, share of identity factors",
        gained,
        *counts(usable),
        details={
            "editability_change": kept,
            "limit_distance": power(pooled(by_subject(usable, distance), "limit")),
            "subjects_without_a_limit": float(sum(place < 0 for place in limits.values())),
        },
    )


def _limits(cells: dict[Cell, Result]) -> dict[str, int]:
    """Place of the last samples before a leak against the pivot is detected, seeds pooled.

    -1 if it is detected at the first already; the last place if it never is.
    """
    limits: dict[str, int] = {}
    for subject in dict.fromkeys(cell.subject for cell in cells):
        of = {c: r for c, r in cells.items() if c.subject == subject}
        steps = min(len(followed(r)) for r in of.values())
        limits[subject] = -1
        for i in range(steps):
            near, far = [], []
            for cell, result in of.items():
                usual, pivot = result["reference"]["class"], result["reference"]["pivot"]
                training = training_positions(cell)
                near.append(nearness(followed(result)[i], usual, training))
                far.append(nearness(pivot, usual, training))
            if leak.p_value(np.concatenate(near), np.concatenate(far)) < leak.SIGNIFICANT:
                break
            limits[subject] = i
    return limits
