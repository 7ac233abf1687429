"""The three curves of a sweep against log distance, and how they vary over its seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from pti_pipeline.choosing.points import Point, Pool, pool
from pti_pipeline.curves import Curve, fit
from pti_pipeline.leak import MARGIN, SIGNIFICANT
from pti_pipeline.randomness import numpy_generator

DRAWS = 200
"""Bootstrap resamples of the seeds."""
FEWEST = 3
"""Distances that a curve needs."""
NOISE = {"reconstruction": 0.002, "editability": 0.02, "auc": 0.01}
"""Standard deviation that a measured value has at least."""


@dataclass(frozen=True)
class Fits:
    """Curves of one sweep, or of one resample of its seeds.

    Attributes
    ----------
    pools : tuple of Pool
        The nearest first.
    end : int
        Index of the first pool that diverged or collapsed; their number if none did.
    reconstruction, editability, leak : Curve or None
        The leak's is of the AUC. None if fewer than three distances before the end have it.
    """

    pools: tuple[Pool, ...]
    end: int
    reconstruction: Curve | None
    editability: Curve | None
    leak: Curve | None

    @property
    def before(self) -> tuple[Pool, ...]:
        """Pools before the first collapse."""
        return self.pools[: self.end]

    @property
    def clean(self) -> tuple[Pool, ...]:
        """Pools before the first collapse and the first sure leak; see :func:`sure`."""
        tests = 1 if self.leak is None else len(self.before)
        first = next((i for i, p in enumerate(self.before) if sure(p, tests)), self.end)
        return self.pools[:first]

    @property
    def crossed(self) -> Pool | None:
        """Pool at which the range ends, by a leak or a collapse."""
        n = len(self.clean)
        return self.pools[n] if n < len(self.pools) else None


def sure(at: Pool, tests: int) -> bool:
    """Whether a distance's leak ends the range.

    One test in twenty alarms falsely, so of many distances one often does; and with many samples a
    leak too small to matter is detected. With a curve to judge by, so with ``tests`` above one, the
    p-value must be below 0.05 over their number (Bonferroni) and the AUC at the margin.
    """
    if at.leak is None or tests == 1:
        return at.leaks
    return at.leak.p < SIGNIFICANT / tests and at.leak.auc >= MARGIN


def fit_points(points: Sequence[Point], level: float = 0.0) -> Fits:
    """Fit what is before the first collapse; editability also on it, since it falls there.

    The leak's curve ends where positions look random again, if that comes first.

    Parameters
    ----------
    points : sequence of Point
    level : float
        The reference's reconstruction.
    """
    pools = tuple(pool(points))
    end = next((i for i, p in enumerate(pools) if p.broken), len(pools))
    leaked = next((i for i, p in enumerate(pools[:end]) if sure(p, end)), end)
    again = next((i for i in range(leaked, end) if not pools[i].leaks), end)

    def healthy(last: int) -> list[Point]:
        return [points[i] for p in pools[:last] for i in p.rows if not points[i].broken]

    fallen = [points[i] for p in pools[end : end + 1] for i in p.rows if not points[i].diverged]
    return Fits(
        pools,
        end,
        _fit(healthy(end), "reconstruction", level, rising=True),
        _fit([*healthy(end), *fallen], "editability", 1.0, rising=False),
        _fit(healthy(again), "auc", 0.5, rising=True),
    )


def over_seeds(points: Sequence[Point], level: float = 0.0) -> list[Fits]:
    """Fit resamples of the seeds, drawn with replacement; none from a single seed.

    A seed is drawn with all of its learning rates. Equal resamples are fitted once.
    """
    seeds = sorted({p.seed for p in points})
    if len(seeds) < 2:
        return []
    drawn = numpy_generator(0, "seeds", 0).integers(0, len(seeds), (DRAWS, len(seeds)))
    known: dict[tuple[int, ...], Fits] = {}
    fits = []
    for row in np.sort(drawn, axis=1).tolist():
        key = tuple(row)
        if key not in known:
            resample = [p for k in key for p in points if p.seed == seeds[k]]
            known[key] = fit_points(resample, level)
        fits.append(known[key])
    return fits


def interval(
    found: float,
    seeds: int,
    fits: Sequence[Fits],
    rule: Callable[[Fits], float],
    shared: float = 0.0,
) -> tuple[float, float]:
    """95 % interval over seeds of what ``rule`` finds (an x); NaN without resamples.

    The bootstrap's quantiles, moved away from ``found`` twice: by sqrt(S / (S - 1)), since
    resamples of S seeds vary by that much less than seeds do, and by Student's t over the normal
    quantile, since S seeds tell little of their own spread. ``shared`` is the standard error, in
    x, that all seeds have in common, which no resampling shows; it is added in squares. Infinite
    where it leaves the range.
    """
    if not fits:
        return math.nan, math.nan
    ends = np.quantile([rule(f) for f in fits], [0.025, 0.975], method="inverted_cdf")
    wider = math.sqrt(seeds / (seeds - 1)) * float(t.ppf(0.975, seeds - 1)) / 1.96
    below, above = (math.hypot(wider * (float(end) - found), 1.96 * shared) for end in ends)
    low, high = found - below, found + above
    measured = [p.x for f in fits for p in f.pools if math.isfinite(p.x)]
    return (
        low if low >= min(measured) else -math.inf,
        high if high <= max(measured) else math.inf,
    )


def _fit(points: Sequence[Point], key: str, start: float, rising: bool) -> Curve | None:
    kept = [p for p in points if math.isfinite(getattr(p, key))]
    if len(pool(kept)) < FEWEST:
        return None
    x, y = (np.array([getattr(p, name) for p in kept]) for name in ("x", key))
    weights = None
    if key == "auc":
        errors = np.array([p.error for p in kept])
        if np.isfinite(errors).all() and (errors > 0).all():
            weights = errors**-2.0
    return fit(x, y, start, rising, weights, NOISE[key])
