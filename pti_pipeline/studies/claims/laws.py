"""Claim 4: learning rate x steps as a distance; and one run's checkpoints as a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pti_pipeline.inference import exponents, onset
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.curves import (
    FACTORS,
    ONSET,
    distances,
    ends,
    gain,
    onset_of,
)
from pti_pipeline.studies.claims.evidence import Evidence, by_subject
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, said


def distance_law(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 4: the distance is the learning rate times the steps."""
    for stage, kind in (("inversion", "inversion"), ("tuning", "sweep")):
        cells = evidence.usual(kind)
        if not cells:
            continue
        powers = {
            axis: pooled(by_subject(cells, _power_of(axis)), f"{kind}/{axis}") for axis in (0, 1)
        }
        rate, steps = powers[0], powers[1]
        inside = all(p.low > 0.9 and p.high < 1.1 for p in powers.values())
        outside = any(p.high < 0.9 or p.low > 1.1 for p in powers.values())
        yield Verdict(
            f"distance-law-{stage}",
            f"The distance travelled by the {stage} is learning rate x steps.",
            said(inside, outside),
            "exponent of the steps",
            steps,
            *counts(cells),
            details={"exponent_of_the_learning_rate": rate},
        )


def _power_of(axis: int) -> Callable[[Cell, Result], float]:
    def slope(_: Cell, result: Result) -> float:
        rows = [
            (run["lr"], p["step"], p["distance"]) for run in ends(result) for p in run["probes"]
        ]
        logs = np.log10(np.array(rows))
        return float(exponents(logs[:, :2], logs[:, 2])[axis])

    return slope


def one_run_curve(evidence: Evidence) -> Iterator[Verdict]:
    """Both ways to the curve: checkpoints of one run against runs of their own."""
    runs = {c: r for c, r in evidence.usual("tuning").items() if c.seed == 0}
    sweeps = {c.subject: r for c, r in evidence.usual("sweep").items()}
    cells = {c: r for c, r in runs.items() if c.subject in sweeps}
    if not cells:
        return

    def gap(factor: str) -> Callable[[Cell, Result], float]:
        def decades(cell: Cell, result: Result) -> float:
            swept = sweeps[cell.subject]
            last = [run["probes"][-1] for run in ends(swept)]
            there = onset(distances(last), gain(swept, last, factor), ONSET)
            return float(np.log10(onset_of(result, factor, ONSET) / there))

        return decades

    off = pooled(by_subject(cells, gap("position")), "curve")
    yield Verdict(
        "one-run-curve",
        "Checkpoints of one run show the distance at which positions start as well as runs at "
        "several learning rates do.",
        said(off.low > -0.1 and off.high < 0.1, off.low > 0.1 or off.high < -0.1),
        "distance by checkpoints over that by learning rates, decades (goal within 0.1)",
        off,
        *counts(cells),
        details={f"gap_{f}": pooled(by_subject(cells, gap(f)), f"curve/{f}") for f in FACTORS},
    )
