"""A choice among a sweep's experiments, with its reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pti_pipeline.choosing.fits import Fits, interval
from pti_pipeline.choosing.points import Point, Pool
from pti_pipeline.leak import MARGIN, Verdict

FEW = "too few points for a curve"
"""Said where the choice is made among the measured points alone."""


@dataclass(frozen=True)
class Choice:
    """The chosen experiment, and why.

    Attributes
    ----------
    index : int
        Of the chosen point.
    value : float
        Distance of the knee or limit; the chosen point's own where it is not bracketed.
    low, high : float
        95 % interval of ``value`` over seeds; 0 or infinite where it leaves the measured range,
        NaN with one seed, or where there is no curve.
    rule : str
        What was looked for: ``"knee"`` or ``"limit"``.
    reason : str
        One sentence.
    rejected : tuple of (int, str)
        Index of every other point, and why it was not taken.
    certified : bool
        Whether the chosen distance and all nearer ones are certified free of a leak.
    certificate : str
        That in words, and what it would take.
    bracketed : bool
        Whether the knee or limit lies within the measured range.
    sound : bool
        False if the point leaks or collapsed and was taken for want of a better one.
    rows : tuple of int
        Indices of the points that the curves are of.
    fits : Fits
        The curves that it was chosen from; their pools count within ``rows``.
    draws : tuple of Fits
        Those of the resampled seeds.
    """

    index: int
    value: float
    low: float
    high: float
    rule: str
    reason: str
    rejected: tuple[tuple[int, str], ...]
    certified: bool
    certificate: str
    bracketed: bool
    sound: bool
    rows: tuple[int, ...]
    fits: Fits
    draws: tuple[Fits, ...]

    @property
    def leak(self) -> Verdict | None:
        """Of the chosen point's distance, its seeds together; None if it was not measured."""
        own = self.rows.index(self.index)
        return next(pool.leak for pool in self.fits.pools if own in pool.rows)

    def among(self, rows: Sequence[int]) -> Choice:
        """Return the choice in the indices of a longer list, which has its points at ``rows``."""
        rejected = tuple((rows[i], why) for i, why in self.rejected)
        return replace(self, index=rows[self.index], rejected=rejected, rows=tuple(rows))


@dataclass(frozen=True)
class Place:
    """Where the knee or limit lies, in x, and its interval over seeds.

    ``bracketed`` says whether the measured range holds it; else ``x`` is not to be believed.
    """

    x: float
    low: float
    high: float
    seeds: int
    bracketed: bool

    def __str__(self) -> str:
        """Write distance and interval."""
        if self.seeds < 2:
            interval = "no interval: one seed"
        elif math.isnan(self.low):
            interval = "no interval"
        else:
            low = "below the range" if math.isinf(self.low) else f"{10**self.low:.3g}"
            high = "beyond the range" if math.isinf(self.high) else f"{10**self.high:.3g}"
            interval = f"95 % interval {low} to {high} over {self.seeds} seeds"
        return f"distance {10**self.x:.3g} ({interval})"


def locate(
    points: Sequence[Point],
    fits: Fits,
    draws: Sequence[Fits],
    rule: Callable[[Fits], float],
    bracketed: bool,
    shared: float = 0.0,
) -> Place:
    """Find the place by ``rule``, and its interval by the same rule on the resampled seeds."""
    x, seeds = rule(fits), len({p.seed for p in points})
    low, high = interval(x, seeds, draws, rule, shared) if bracketed else (math.nan, math.nan)
    return Place(x, low, high, seeds, bracketed)


def conclude(
    rule: str,
    points: Sequence[Point],
    fits: Fits,
    draws: Sequence[Fits],
    index: int,
    place: Place,
    reason: str,
    why_not: Callable[[int], str],
    sound: bool,
) -> Choice:
    """Put a choice together from what was found at ``place``; see :class:`Choice`."""
    at = next(p.x for p in fits.pools if index in p.rows)
    certified, words = certificate(points, fits.pools, at)
    value, low, high = (float(np.power(10.0, x)) for x in (place.x, place.low, place.high))
    rejected = tuple((i, why_not(i)) for i in range(len(points)) if i != index)
    return Choice(
        index=index,
        value=value if place.bracketed else points[index].distance,
        low=low,
        high=high,
        rule=rule,
        reason=reason,
        rejected=rejected,
        certified=certified,
        certificate=words,
        bracketed=place.bracketed,
        sound=sound,
        rows=tuple(range(len(points))),
        fits=fits,
        draws=tuple(draws),
    )


def certificate(points: Sequence[Point], pools: Sequence[Pool], x: float) -> tuple[bool, str]:
    """Say whether all distances up to ``x`` are certified free of a leak, and what it would take.

    Parameters
    ----------
    points : sequence of Point
    pools : sequence of Pool
        The nearest first; the one chosen stands at ``x``.
    """
    upto = [(p, p.leak) for p in pools if p.x <= x and p.leak is not None]
    upto = [(p, v) for p, v in upto if math.isfinite(v.upper)]
    if not upto:
        return False, "not certified: no leak was measured"
    if any(p.leaks for p, _ in upto):
        return False, "not certified: a leak is detected"
    where, worst = max(upto, key=lambda pair: pair[1].upper)
    if worst.upper < MARGIN:
        bound = f"95 % upper bound of the leak AUC {worst.upper:.3f} < {MARGIN}"
        return True, f"certified free of a leak up to this distance: {bound}"
    bound = f"95 % upper bound of the leak AUC {worst.upper:.3f} at distance {where.distance:.3g}"
    return (
        False,
        f"not certified: {bound}, not below {MARGIN}; {_needs(points, where, worst.needed)}",
    )


def _needs(points: Sequence[Point], where: Pool, needed: int | None) -> str:
    if needed is None:
        return "an AUC this high is not certified by any number of samples"
    k = len([i for i in where.rows if math.isfinite(points[i].leak)])
    each = math.ceil(needed * (1 + 1 / k) / 2)
    had = max(points[i].samples for i in where.rows)
    known = f" instead of {had}" if had else ""
    if had >= each:
        return f"with {had} samples of each run this is bad luck or a small leak: use twice as many"
    return f"evaluate with about {each} samples of each run{known}"
