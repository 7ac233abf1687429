"""The note's last claim: a regularizer lets a tuning go farther before it learns positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pti_pipeline.inference import Estimate
from pti_pipeline.studies.claims.comparison_grid import best_weights, screen
from pti_pipeline.studies.claims.evidence import Evidence, by_subject
from pti_pipeline.studies.claims.limits import Limit, limit_of
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, power, said

DECISIVE = 2.0
"""Times by which the learning rate has to grow at an equal bound of the leak."""


def locality(evidence: Evidence) -> Iterator[Verdict]:
    """The regularizers against none, each pair at equal subject, seed and compute."""
    cells = {c: r for c, r in evidence.cells.items() if c.arm}
    limits = {cell: limit_of(cell, result) for cell, result in cells.items()}
    if any(cell not in limits for cell in screen()):
        return
    best = best_weights(cells)
    used = {c: r for c, r in cells.items() if best.get(c.arm) == c.weight}
    plain = {(c.subject, c.seed): limits[c] for c in used if c.arm == "none"}

    def against(name: str, value: Callable[[Limit], float]) -> Estimate:
        """Value of an arm less that of none."""
        of = {c: r for c, r in used.items() if c.arm == name and (c.subject, c.seed) in plain}
        groups = by_subject(of, lambda c, _: value(limits[c]) - value(plain[c.subject, c.seed]))
        return pooled(groups, f"locality/{name}")

    def times(name: str, value: Callable[[Limit], float]) -> Estimate:
        """Value of an arm over that of none, in decades."""
        return against(name, lambda at: float(np.log10(value(at))))

    for name in [n for n in best if n != "none"]:
        farther = times(name, lambda at: at.lr)
        better = against(name, lambda at: at.appearance)
        supported = farther.low >= np.log10(DECISIVE) or better.low > 0
        yield Verdict(
            f"regularizer-{name}",
            f"With {name} a tuning may learn faster at an equal leak, or shows more of the "
            "character at its limit.",
            said(supported, farther.high < np.log10(DECISIVE) and better.high <= 0),
            "learning rate at the limit, over that without a regularizer",
            power(farther),
            *counts({c: r for c, r in used.items() if c.arm in (name, "none")}),
            details={
                "weight": best[name],
                "appearance_at_the_limit": better,
                "editability_at_the_limit": against(name, lambda at: at.editability),
                "limit_distance_ratio": power(times(name, lambda at: at.distance)),
                "drift_on_other_prompts_ratio": power(times(name, lambda at: at.drift)),
                "hypervolume": against(name, lambda at: at.hypervolume),
            },
        )
