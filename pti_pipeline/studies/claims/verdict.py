"""What the cells say of a claim, and how it is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

from pti_pipeline.inference import Estimate, Values, mean_over_subjects, resampled
from pti_pipeline.randomness import numpy_generator
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.evidence import Groups

MARGIN = 0.05
"""Loss of editability that still counts as none."""


@dataclass(frozen=True)
class Verdict:
    """What the cells say of a claim.

    Attributes
    ----------
    name, claim : str
        Its short name, and what is claimed.
    verdict : str
        ``supported``, ``not supported`` or ``undecided``.
    estimate : Estimate
        Of ``unit``, with its 95 % interval over subjects and seeds.
    subjects, seeds, samples : int
        How many stand behind it.
    details : mapping of str to float or Estimate
        Further numbers.
    group : str
        Value of the command's option ``claim`` that computes its cells.
    """

    name: str
    claim: str
    verdict: str
    unit: str
    estimate: Estimate
    subjects: int
    seeds: int
    samples: int
    details: Mapping[str, float | Estimate] = field(default_factory=dict)
    group: str = "note"


def said(supported: bool, refused: bool) -> str:
    """Name a verdict: what is neither supported nor refused is undecided."""
    return "supported" if supported else "not supported" if refused else "undecided"


def pooled(groups: Groups, stream: str) -> Estimate:
    """Mean over subjects with its interval, NaN of none; ``stream`` seeds the bootstrap."""
    if not groups:
        return Estimate(math.nan, math.nan, math.nan)
    sizes = tuple(len(values) for values in groups.values())
    return mean_over_subjects(groups, _resampled(stream, sizes))


@cache
def _resampled(stream: str, sizes: tuple[int, ...]) -> Values:
    """Draws of a stream, which many numbers share."""
    return resampled(sizes, numpy_generator(0, f"claims/{stream}", 0))


def power(logs: Estimate) -> Estimate:
    """Turn decimal logarithms back."""
    return Estimate(10**logs.value, 10**logs.low, 10**logs.high)


def counts(cells: dict[Cell, Result]) -> tuple[int, int, int]:
    """Subjects, most seeds of one, and samples read."""
    subjects = {cell.subject for cell in cells}
    seeds = max(len({c.seed for c in cells if c.subject == s}) for s in subjects)
    drawn = chain.from_iterable(_drawn(result) for result in cells.values())
    return len(subjects), seeds, sum(len(sample["x"]) for sample in drawn)


def _drawn(result: Result) -> Sequence[Result]:
    rows: list[Result] = list(result["reference"].values())
    for run in result["runs"]:
        samples = run.get("samples", [])
        rows += samples if isinstance(samples, list) else [samples]
    return rows
