"""The note's last claim: a regularizer lets a tuning go farther before it learns positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pti_pipeline.inference import Estimate
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.comparison_grid import chosen, finals
from pti_pipeline.studies.claims.curves import ends, obedience
from pti_pipeline.studies.claims.evidence import Evidence, by_subject
from pti_pipeline.studies.claims.limits import Limit, class_leak, limit_of
from pti_pipeline.studies.claims.prompts import KINDS
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, power, said

PLAIN_LR = 1e-3
"""Of a plain inversion, among those of the note's cells."""
DECISIVE = 2.0
"""Times by which the learning rate has to grow at an equal bound of the leak."""


def locality(evidence: Evidence) -> Iterator[Verdict]:
    """The regularizers against none, each pair at equal subject, seed and compute."""
    cells = {c: r for c, r in evidence.cells.items() if c.arm}
    limits = {cell: limit_of(cell, result) for cell, result in cells.items()}
    if (best := chosen(cells)) is None:
        return
    wanted = [cell for cell in finals(best) if cell.arm]
    if any(cell not in cells for cell in wanted):
        return
    used = {cell: cells[cell] for cell in wanted}
    plain = {(c.subject, c.seed): limits[c] for c in used if c.arm == "none"}

    def against(name: str, value: Callable[[Limit], float], crossed: bool = False) -> Estimate:
        """Value of an arm less that of none.

        Of pairs of which one at least crosses the bound, if ``crossed``: else both are mere ends.
        """
        of = {c: r for c, r in used.items() if c.arm == name}
        if crossed:
            ends_both = {c for c in of if limits[c].censored and plain[c.subject, c.seed].censored}
            of = {c: r for c, r in of.items() if c not in ends_both}
        groups = by_subject(of, lambda c, _: value(limits[c]) - value(plain[c.subject, c.seed]))
        return pooled(groups, f"locality/{name}")

    def times(name: str, value: Callable[[Limit], float], crossed: bool = False) -> Estimate:
        """Value of an arm over that of none, in decades."""
        return against(name, lambda at: float(np.log10(value(at))), crossed)

    for name in [n for n in best if n != "none"]:
        farther = times(name, lambda at: at.lr, crossed=True)
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
            group="locality",
            details={
                "weight": best[name],
                "limits_beyond_the_sweep": float(
                    np.mean([limits[c].censored for c in used if c.arm == name])
                ),
                "appearance_at_the_limit": better,
                "editability_at_the_limit": against(name, lambda at: at.editability),
                "limit_distance_ratio": power(times(name, lambda at: at.distance, crossed=True)),
                "drift_on_other_prompts_ratio": power(times(name, lambda at: at.drift)),
                "hypervolume": against(name, lambda at: at.hypervolume),
            },
        )


def against_baselines(evidence: Evidence) -> Iterator[Verdict]:
    """What others do at its usual defaults, beside the light tuning at its limit."""
    light = {c: r for c, r in evidence.of(arm="none").items() if c.rates == "low"}
    ours = {(c.subject, c.seed): limit_of(c, r) for c, r in light.items()}
    kinds = {
        "plain_inversion": evidence.usual("inversion"),
        "dreambooth": evidence.of(kind="dreambooth"),
        "joint": evidence.of(kind="joint"),
    }
    known = {
        name: {c: r for c, r in cells.items() if (c.subject, c.seed) in ours}
        for name, cells in kinds.items()
    }
    if not known["joint"] or not known["dreambooth"]:
        return

    def mean(name: str, value: Callable[[Cell, Result], float]) -> Estimate:
        return pooled(by_subject(known[name], value), f"baselines/{name}")

    def shown(name: str, key: str) -> Estimate:
        return mean(name, lambda c, r: _worth(c, r)[key])

    def own(key: str) -> Estimate:
        return mean("joint", lambda c, _: getattr(ours[c.subject, c.seed], key))

    gained = mean(
        "joint",
        lambda c, r: ours[c.subject, c.seed].appearance - _worth(c, r)["appearance"],
    )
    keys = ("appearance", "editability", "leak")
    yield Verdict(
        "baselines",
        "At its limit the light tuning shows more of the character than token and LoRA trained "
        "together do at their usual defaults.",
        said(gained.low > 0, gained.high < 0),
        "appearance, less that of the joint training, share of identity factors",
        gained,
        *counts(light | known["joint"] | known["dreambooth"]),
        group="locality",
        details={
            **{f"light_tuning_{key}": own(key) for key in keys},
            **{f"{name}_{key}": shown(name, key) for name in known for key in keys},
        },
    )


def _worth(cell: Cell, result: Result) -> dict[str, float]:
    """Appearance, editability and leak against the class word of a baseline."""
    runs = ends(result)
    sample = min(runs, key=lambda run: abs(np.log(run["lr"] / PLAIN_LR)))["samples"]
    return {
        "appearance": sample["appearance"],
        "editability": obedience(sample, list(KINDS)),
        "leak": class_leak(cell, result, sample),
    }
