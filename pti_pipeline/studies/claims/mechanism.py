"""Claim 5: each position is taught by its own picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pti_pipeline.inference import exponents
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.curves import FACTORS, ONSET, onset_of
from pti_pipeline.studies.claims.evidence import Evidence, Groups, by_subject
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, power, said

FEWEST = 3
"""Sizes of folders with an onset, of a slope."""


def mechanism(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 5: each position is taught by its own picture, so that it takes n times as long."""
    for inverted in (True, False):
        cells = {
            c: r
            for c, r in evidence.of(kind="tuning", seed=0, constant="", inverted=inverted).items()
        }
        sizes = {
            s: {c.pictures for c in cells if c.subject == s} for s in {c.subject for c in cells}
        }
        whole = {s for s, n in sizes.items() if len(n) >= 4}
        cells = {c: r for c, r in cells.items() if c.subject in whole}
        if len(whole) < 2:  # one subject has no interval
            continue
        slopes = {f: pooled(_slopes(cells, f), f"{inverted}/{f}") for f in FACTORS}
        position, flat = slopes["position"], slopes["appearance"]
        supported = position.low > 0.7 and position.high < 1.3 and abs(flat.value) < 0.3
        start = "a pivot" if inverted else "the class word"
        yield Verdict(
            "mechanism" + ("" if inverted else "-without-inversion"),
            f"From {start}, positions start at a distance in proportion to the number of pictures, "
            "appearance does not.",
            said(supported, position.high < 0.7 or position.low > 1.3),
            "slope of log distance in log pictures (theory 1)",
            position,
            *counts(cells),
            details={f"slope_{f}": slope for f, slope in slopes.items() if f != "position"},
        )


def _slopes(cells: dict[Cell, Result], factor: str) -> Groups:
    groups: Groups = {}
    for subject in dict.fromkeys(cell.subject for cell in cells):
        rows = [
            (np.log10(c.pictures), np.log10(onset_of(r, factor, ONSET)))
            for c, r in cells.items()
            if c.subject == subject
        ]
        logs = np.array([row for row in rows if np.isfinite(row).all()])
        if len(logs) >= FEWEST:
            groups[subject] = [float(exponents(logs[:, :1], logs[:, 1])[0])]
    return groups


def controls(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 5: what is the same in every picture is learnt early, as the appearance is."""
    usual = {c.subject: r for c, r in evidence.usual("tuning").items() if c.seed == 0}
    for constant in ("position", "scene"):
        cells = {
            c: r
            for c, r in evidence.of(kind="tuning", constant=constant, inverted=True).items()
            if c.subject in usual
        }
        if not cells:
            continue

        def earlier(cell: Cell, result: Result, factor: str = constant) -> float:
            free = onset_of(usual[cell.subject], factor, ONSET)
            return float(np.log10(onset_of(result, factor, ONSET) / free))

        ratio = power(pooled(by_subject(cells, earlier), constant))
        yield Verdict(
            f"constant-{constant}",
            f"A {constant} that never changes is learnt earlier than one that does.",
            said(ratio.high < 1, ratio.low > 1),
            "distance at which it starts, constant over changing",
            ratio,
            *counts(cells),
        )
