"""Claim 1: the inversion's two zones and the knee between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pti_pipeline.inference import onset
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.curves import distances, ends, gain, obedience
from pti_pipeline.studies.claims.evidence import Evidence, by_subject
from pti_pipeline.studies.claims.grid import SEVERAL_VECTORS
from pti_pipeline.studies.claims.prompts import KINDS
from pti_pipeline.studies.claims.verdict import MARGIN, Verdict, counts, pooled, power, said

PLATEAU = 0.9
"""Share of the inversion's largest gain that the knee has."""


def inversion_knee(evidence: Evidence) -> Iterator[Verdict]:
    """Claim 1: much gain for little editability first, then the reverse."""
    for vectors in (1, SEVERAL_VECTORS):
        cells = evidence.usual("inversion", vectors)
        if cells:
            yield _two_zones(cells, vectors)


def _two_zones(cells: dict[Cell, Result], vectors: int) -> Verdict:
    knees = by_subject(cells, lambda _, r: np.log10(_knee(r)))
    zones = {
        f"{kind}_{zone}": pooled(by_subject(cells, _zone(kind, zone)), f"{kind}/{zone}")
        for kind in KINDS
        for zone in ("before", "beyond")
    }
    lost = pooled(by_subject(cells, _zone_mean("beyond")), "beyond")
    kept = pooled(by_subject(cells, _zone_mean("before")), "before")
    supported = lost.high < 0 and kept.low > -MARGIN
    refused = lost.low > -MARGIN or kept.high < -MARGIN
    return Verdict(
        "inversion-knee" + (f"-{vectors}-vectors" if vectors > 1 else ""),
        "Away from the initializer, reconstruction is gained at little cost in editability up to "
        "a knee, and editability is lost for little gain beyond it.",
        said(supported, refused),
        "editability lost beyond the knee, share of samples",
        lost,
        *counts(cells),
        details={
            "knee_distance": power(pooled(knees, "knee")),
            "editability_before_the_knee": kept,
            **zones,
        },
    )


def _knee(result: Result) -> float:
    """Distance at which the inversions' gain on twins reaches most of its largest."""
    last = [run["probes"][-1] for run in ends(result)]
    return onset(distances(last), gain(result, last, "appearance"), PLATEAU)


def _zone(kind: str, zone: str) -> Callable[[Cell, Result], float]:
    """Change of obedience up to the knee, or from there to the farthest sound inversion."""

    def change(_: Cell, result: Result) -> float:
        runs = ends(result)
        reach = np.log10(distances([run["probes"][-1] for run in runs]))
        values = np.array([obedience(run["samples"], [kind]) for run in runs])
        at_knee = float(np.interp(np.log10(_knee(result)), reach, values))
        usual = obedience(result["reference"]["class"], [kind])
        return at_knee - usual if zone == "before" else float(values[-1] - at_knee)

    return change


def _zone_mean(zone: str) -> Callable[[Cell, Result], float]:
    return lambda cell, result: float(np.mean([_zone(k, zone)(cell, result) for k in KINDS]))
