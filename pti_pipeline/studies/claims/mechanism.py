"""Claim 5: each position is taught by its own picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pti_pipeline.inference import exponents, reaching
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.curves import FACTORS, ONSET, gain, onset_of
from pti_pipeline.studies.claims.evidence import Evidence, Groups, by_subject
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, power, said

SIZES = 4
"""Sizes of folders that a slope is taken over."""


def mechanism(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 5: each position is taught by its own picture, so that n of them take n times as long.

    Asked of the distance, which is what the note says, and of the steps, which is what each picture
    is seen in: a batch of four shows each of n pictures 4 steps / n times.
    """
    for inverted in (True, False):
        cells = whole(evidence.of(kind="tuning", seed=0, constant="", inverted=inverted))
        if len({c.subject for c in cells}) > 1:  # one subject has no interval
            yield _proportion(cells, inverted, "distance")
            yield _proportion(cells, inverted, "step")


def whole(cells: dict[Cell, Result]) -> dict[Cell, Result]:
    """Cells of the subjects of which all sizes are there."""
    sizes: dict[str, set[int]] = {}
    for cell in cells:
        sizes.setdefault(cell.subject, set()).add(cell.pictures)
    return {c: r for c, r in cells.items() if len(sizes[c.subject]) >= SIZES}


def _proportion(cells: dict[Cell, Result], inverted: bool, axis: str) -> Verdict:
    slopes = {f: pooled(_slopes(cells, f, axis), f"{inverted}/{f}/{axis}") for f in FACTORS}
    position, flat = slopes["position"], slopes["appearance"]
    supported = position.low > 0.7 and position.high < 1.3 and abs(flat.value) < 0.3
    never = _unreached(cells)
    short = position.high < 0.7 and not never  # what never started makes a slope a lower bound
    start = "a pivot" if inverted else "the class word"
    what = {"distance": "at a distance", "step": "after a number of steps"}[axis]
    name = "mechanism" + ("-in-steps" if axis == "step" else "")
    return Verdict(
        name + ("" if inverted else "-without-inversion"),
        f"From {start}, positions start {what} in proportion to the number of pictures, "
        "appearance does not.",
        said(supported, short or position.low > 1.3),
        f"slope of log {axis} in log pictures (theory 1)",
        position,
        *counts(cells),
        details={
            **{f"slope_{f}": slope for f, slope in slopes.items() if f != "position"},
            "positions_never_learnt": never,
        },
    )


def _unreached(cells: dict[Cell, Result]) -> float:
    """Share of the tunings that never start to learn positions; their slopes are lower bounds."""
    found: list[Start] = []
    for subject in dict.fromkeys(cell.subject for cell in cells):
        found += starts({c: r for c, r in cells.items() if c.subject == subject}, "position")
    return float(np.mean([not start.reached for start in found]))


def _slopes(cells: dict[Cell, Result], factor: str, axis: str) -> Groups:
    groups: Groups = {}
    for subject in dict.fromkeys(cell.subject for cell in cells):
        own = {c: r for c, r in cells.items() if c.subject == subject}
        found = [(start.pictures, start.at) for start in starts(own, factor, axis)]
        logs = np.log10(np.array(found))
        groups[subject] = [float(exponents(logs[:, :1], logs[:, 1])[0])]
    return groups


@dataclass(frozen=True)
class Start:
    """Where one subject's tuning on some pictures starts to learn a factor.

    ``reached`` is False if it never did; ``at`` is then how far it went.
    """

    pictures: int
    at: float
    reached: bool


def starts(cells: dict[Cell, Result], factor: str, axis: str = "distance") -> list[Start]:
    """Starts of one subject's tunings, by the number of pictures.

    The level is common to all: :data:`ONSET` of the largest gain that any of them reaches. Of many
    pictures little is learnt within the steps, and a share of that little would be noise.
    """
    rows = {c: r["runs"][0]["probes"] for c, r in cells.items()}
    gains = {c: gain(r, rows[c], factor) for c, r in cells.items()}
    level = ONSET * max(values.max() for values in gains.values())
    level = level if level > 0 else np.inf  # nothing was learnt by any
    found = []
    for cell in sorted(cells, key=lambda c: c.pictures):
        x = np.array([row[axis] for row in rows[cell]])
        at = reaching(x, gains[cell], level)
        reached = bool(np.isfinite(at))
        found.append(Start(cell.pictures, at if reached else float(x[-1]), reached))
    return found


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
