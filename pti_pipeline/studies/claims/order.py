"""Claim 3: what a tuning learns first, and how repeatably."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pti_pipeline.inference import Estimate
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.curves import (
    FACTORS,
    ONSET,
    onset_of,
    positions,
    training_factors,
    training_positions,
)
from pti_pipeline.studies.claims.evidence import (
    Evidence,
    by_subject,
    onsets,
)
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, power, said

NEAR = 0.06
"""Distance within which a sample stands where a training picture does, of the side."""
REPEATABLE = 0.1
"""Goal for the spread of a limit over seeds, in decades."""


def order(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 3: appearance is learnt before positions, and the nearest first."""
    cells = evidence.usual("tuning")
    if not cells:
        return

    def ratio(factor: str, share: float) -> Estimate:
        groups = by_subject(
            cells,
            lambda _, r: np.log10(onset_of(r, factor, share) / onset_of(r, "appearance", share)),
        )
        return power(pooled(groups, f"{factor}/{share}"))

    main = ratio("position", ONSET)
    others = {f"{f}_over_appearance": ratio(f, ONSET) for f in ("scene", "pose")}
    shares = {f"position_over_appearance_at_{s:g}": ratio("position", s) for s in (0.05, 0.25, 0.5)}
    ranks = {
        f"rank_correlation_of_{name}_gap_and_onset": pooled(
            by_subject(cells, _rank_correlation(name == "total")), f"ranks/{name}"
        )
        for name in ("total", "mean")
    }
    yield Verdict(
        "order",
        "The tuning learns appearance before positions.",
        said(main.low > 1, main.high < 1),
        "distance at which position starts over that of appearance (goal 2)",
        main,
        *counts(cells),
        details={
            **others,
            **shares,
            **{f"onset_{f}": power(pooled(onsets(cells, f), f)) for f in FACTORS},
            **ranks,
        },
    )


def _rank_correlation(total: bool) -> Callable[[Cell, Result], float]:
    """Rank correlation of initial gap and onset over factors: 1 if the nearest is learnt first."""

    def correlation(cell: Cell, result: Result) -> float:
        gaps = initial_gaps(cell, result)
        far = [sum(gaps[f]) if total else np.mean(gaps[f]) for f in FACTORS]
        return float(spearmanr(far, [onset_of(result, f, ONSET) for f in FACTORS])[0])

    return correlation


def initial_gaps(cell: Cell, result: Result) -> dict[str, list[float]]:
    """Surprise of the training pictures to the pivot, in bits, for each part of each factor.

    From the share of the pivot's samples that show what a training picture shows: the seven parts
    of the appearance, the scene, the position (within :data:`NEAR`), and facing and arms.
    """
    pivot = result["reference"]["pivot"]
    n = len(pivot["x"])
    factors = training_factors(cell)
    gaps = np.linalg.norm(positions(pivot)[:, None] - training_positions(cell), axis=-1)

    def bits(share: NDArray[np.floating] | float) -> float:
        return float(np.mean(-np.log2(np.maximum(share, 0.5 / n))))

    def surprise(name: str) -> float:
        shown: NDArray[np.floating] = np.array(pivot[name])[:, None] == getattr(factors, name)
        return bits(shown.mean(0))

    return {
        "appearance": [bits(share) for share in pivot["identity"].values()],
        "scene": [surprise("scene")],
        "position": [bits((gaps < NEAR).mean(0))],
        "pose": [surprise("facing"), surprise("arms")],
    }


def repeatability(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 3: the distance at which positions start is the same for every seed."""
    cells = evidence.usual("tuning")
    groups = {s: v for s, v in onsets(cells, "position").items() if len(v) >= 5}
    if not groups:
        return
    spreads = {subject: [float(np.std(values, ddof=1))] for subject, values in groups.items()}
    spread = pooled(spreads, "repeatability")
    used = {c: r for c, r in cells.items() if c.subject in groups}
    yield Verdict(
        "repeatability",
        "The distance at which positions start being learnt is the same for every seed.",
        said(spread.high <= REPEATABLE, spread.low > REPEATABLE),
        f"standard deviation over seeds, decades (goal {REPEATABLE})",
        spread,
        *counts(used),
    )
