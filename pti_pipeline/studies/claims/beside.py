"""What others do at its usual defaults, beside the light tuning at its limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pti_pipeline.inference import Estimate
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.comparison_grid import baselines
from pti_pipeline.studies.claims.curves import ends, obedience
from pti_pipeline.studies.claims.evidence import Evidence, by_subject
from pti_pipeline.studies.claims.limits import appearance_at, class_leak, limit_of
from pti_pipeline.studies.claims.prompts import KINDS
from pti_pipeline.studies.claims.verdict import Verdict, counts, pooled, said

PLAIN_LR = 1e-3
"""Of a plain inversion, among those of the note's cells."""
COMPARABLE = 0.5
"""Share of pairs that must reach an equal leak for a verdict."""


def against_baselines(evidence: Evidence) -> Iterator[Verdict]:
    """What others do, in pairs with the light tuning of equal subject and seed."""
    light = {
        (c.subject, c.seed): (c, r) for c, r in evidence.of(arm="none").items() if c.rates == "low"
    }
    kinds = {
        "plain_inversion": evidence.usual("inversion"),
        "dreambooth": evidence.of(kind="dreambooth"),
        "joint": evidence.of(kind="joint"),
    }
    wanted = baselines()
    if any(c not in evidence.cells or (c.subject, c.seed) not in light for c in wanted):
        return
    known = {
        name: {c: r for c, r in cells.items() if (c.subject, c.seed) in light}
        for name, cells in kinds.items()
    }
    limits = {pair: limit_of(*own) for pair, own in light.items()}
    worth = {c: _worth(c, r) for cells in known.values() for c, r in cells.items()}

    def mean(name: str, value: Callable[[Cell], float]) -> Estimate:
        return pooled(by_subject(known[name], lambda c, _: value(c)), f"baselines/{name}")

    def shown(name: str, key: str) -> Estimate:
        return mean(name, lambda c: worth[c][key])

    def own(key: str) -> Estimate:
        return mean("joint", lambda c: getattr(limits[c.subject, c.seed], key))

    def at_the_limit(name: str) -> Estimate:
        return mean(name, lambda c: limits[c.subject, c.seed].appearance - worth[c]["appearance"])

    def at_equal_leak(name: str) -> Estimate:
        return mean(name, lambda c: ahead[c])

    ahead = {
        c: appearance_at(*light[c.subject, c.seed], worth[c]["leak"]) - worth[c]["appearance"]
        for c in worth
    }
    shares = {
        name: float(np.mean([np.isfinite(ahead[c]) for c in cells]))
        for name, cells in known.items()
    }
    gained, comparable = at_equal_leak("joint"), shares["joint"] >= COMPARABLE
    keys = ("appearance", "editability", "leak")
    yield Verdict(
        "baselines",
        "Where it leaks as much, the light tuning shows more of the character than token and LoRA "
        "trained together at their usual defaults.",
        said(comparable and gained.low > 0, comparable and gained.high < 0),
        "appearance, less that of the joint training, share of identity factors",
        gained,
        *counts(dict(light.values()) | known["joint"] | known["dreambooth"]),
        group="locality",
        details={
            **{f"light_tuning_{key}": own(key) for key in keys},
            **{f"{name}_{key}": shown(name, key) for name in known for key in keys},
            **{f"appearance_over_{name}_at_the_limit": at_the_limit(name) for name in known},
            **{f"appearance_over_{name}_at_its_leak": at_equal_leak(name) for name in known},
            **{f"share_of_pairs_at_the_leak_of_{name}": share for name, share in shares.items()},
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
