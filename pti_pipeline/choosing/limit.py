"""The limit of a tuning: how far a LoRA may travel before positions are copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from pti_pipeline.choosing.choice import FEW, Choice, Place, conclude, locate
from pti_pipeline.choosing.fits import FEWEST, Fits, fit_points, over_seeds
from pti_pipeline.choosing.points import Point, Pool, further, nearer
from pti_pipeline.leak import MARGIN

STRIDE = 0.05
"""Decades over which the leak's slope is taken."""


def choose_limit(points: Sequence[Point], level: float = 0.0) -> Choice:
    """Choose the farthest measured run that is not beyond the limit.

    The limit is the distance at which the fitted leak AUC passes 0.55, and before the first one
    that surely leaks or collapsed. The first crossing counts: beyond it positions look random
    again. A distance whose own leak is detected is not taken, nor one that a nearer one beats both
    in reconstruction and in editability; of several seeds at the one that is, the best
    reconstruction wins.

    Parameters
    ----------
    points : sequence of Point
        In any order.
    level : float
        The pivot's own reconstruction.

    Raises
    ------
    ValueError
        If every experiment diverged.
    """
    fits = fit_points(points, level)
    if all(p.diverged for p in points):
        raise ValueError("every experiment of the sweep diverged or collapsed")
    draws = over_seeds(points, level) if len(fits.pools) >= FEWEST else []
    x = limit(fits)
    bracketed = bool(fits.clean) and fits.pools[0].x <= x < math.inf
    place = locate(points, fits, draws, limit, bracketed, _shared_error(points, fits, x))
    at = _chosen_pool(points, fits, x)
    reason = _reason(points, fits, at, place)
    if len(fits.pools) < FEWEST:
        reason = f"{FEW}; {reason}"
    index = _best(points, at)
    sound = any(not p.leaks for p in fits.clean)
    why_not = partial(_why_not, points, fits, at, x)
    return conclude("limit", points, fits, draws, index, place, reason, why_not, sound)


def limit(fits: Fits) -> float:
    """Return the limit's x; infinite where the range does not hold it."""
    clean, crossed = fits.clean, fits.crossed
    if not clean:
        return -math.inf
    fitted = _fitted(fits)
    if crossed is None:
        return fitted if fitted <= clean[-1].x else math.inf
    if fitted < crossed.x:
        return fitted
    return (clean[-1].x + crossed.x) / 2 if math.isfinite(crossed.x) else clean[-1].x


def _fitted(fits: Fits) -> float:
    """Return the x at which the fitted AUC passes the margin."""
    curve = fits.leak
    if curve is None:
        return math.inf
    if curve.flat:
        return math.inf if curve.plateau < MARGIN else -math.inf
    return curve.solve(MARGIN)


def _shared_error(points: Sequence[Point], fits: Fits, x: float) -> float:
    """Standard error of the limit's x by the reference's samples, which all runs share.

    They make up half of an AUC's variance where both sides have as many samples; over the curve's
    slope, that is an error in x.
    """
    errors = np.array([p.error for p in points if math.isfinite(p.error)])
    if fits.leak is None or fits.leak.flat or not len(errors) or not math.isfinite(x):
        return 0.0
    rise = float(fits.leak(x + STRIDE) - fits.leak(x - STRIDE)) / (2 * STRIDE)
    return math.sqrt(float(np.mean(errors**2)) / 2) / rise if rise > 0 else 0.0


def _chosen_pool(points: Sequence[Point], fits: Fits, x: float) -> Pool:
    """Return the farthest pool within the limit that has no detected leak and no nearer one beats.

    A leak may go undetected where pictures have begun to fall apart, and positions look random.
    """
    quiet = [p for p in fits.clean if not p.leaks]
    within = [p for p in quiet if p.x <= x]
    worth = [_worth(points, p) for p in within]
    unbeaten = [p for i, p in enumerate(within) if not any(_beats(w, worth[i]) for w in worth[:i])]
    return unbeaten[-1] if unbeaten else (quiet or fits.pools)[0]


def _worth(points: Sequence[Point], at: Pool) -> tuple[float, float]:
    """Mean reconstruction and editability of the runs that did not collapse."""
    healthy = [points[i] for i in at.rows if not points[i].broken]
    reconstruction = float(np.mean([p.reconstruction for p in healthy]))
    return reconstruction, float(np.nan_to_num(np.mean([p.editability for p in healthy])))


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _best(points: Sequence[Point], at: Pool) -> int:
    """Return the row of best reconstruction, of those that did not collapse if there are some."""
    rows = [i for i in at.rows if not points[i].broken] or list(at.rows)
    return max(rows, key=lambda i: np.nan_to_num(points[i].reconstruction, nan=-np.inf))


def _reason(points: Sequence[Point], fits: Fits, at: Pool, place: Place) -> str:
    x = place.x
    here, smaller = f"({at.distance:.3g})", f"sweep smaller learning rates, {nearer(points)}"
    if not fits.clean:
        what = "collapsed" if at.broken else "copies positions"
        return f"even the nearest distance {here} {what}: {smaller}"
    last, crossed = f"{fits.clean[-1].distance:.3g}", fits.crossed
    beaten = any(at.x < p.x <= x and not p.leaks for p in fits.clean)
    farthest = "farthest measured run before it without a leak"
    if beaten:
        farthest = "farthest without a leak that no nearer one beats"
    run = f"the {farthest} is at distance {at.distance:.3g}"
    if x == math.inf:
        what = f"no limit in this range up to distance {last}"
        if beaten:
            return (
                f"{what}, but what is beyond {at.distance:.3g} leaks or is worse than a nearer run"
            )
        more = f"extend the sweep to larger learning rates, {further(points, _fitted(fits))}"
        return f"{what}: {more}"
    if x < fits.pools[0].x:
        return (
            f"no limit in this range: the fitted leak AUC is above {MARGIN} from the nearest "
            f"distance {here} on, though none is sure there; {smaller}"
        )
    if x == _fitted(fits):
        seen = next((p for p in fits.before if p.leaks), crossed)
        raw = "" if seen is None else f" (raw: first {_event(points, seen)})"
        where = f"where the fitted leak AUC passes {MARGIN}{raw}"
    else:
        where = f"between distance {last} and the first {_event(points, crossed)}"
    return f"limit at {place}, {where}; {run}"


def _event(points: Sequence[Point], crossed: Pool | None) -> str:
    """Say what ends the range."""
    if crossed is None:
        return ""
    if not crossed.broken and crossed.leak is not None:
        return f"detected leak (p = {crossed.leak.p:.2g}) at distance {crossed.distance:.3g}"
    if all(points[i].diverged for i in crossed.rows):
        return f"divergence, at learning rate {points[crossed.rows[0]].lr:g}"
    return f"collapse at distance {crossed.distance:.3g}"


def _why_not(points: Sequence[Point], fits: Fits, at: Pool, x: float, i: int) -> str:
    own = next(k for k, p in enumerate(fits.pools) if i in p.rows)
    here = fits.pools[own]
    if points[i].broken:
        return points[i].broken
    if here is at:
        return "another seed of the chosen learning rate reconstructs better"
    if own >= fits.end:
        return "at or beyond the first collapse"
    if here.leaks and here.leak is not None:
        return f"a leak is detected (p = {here.leak.p:.2g})"
    if own >= len(fits.clean):
        return "beyond the first detected leak"
    if here.x > x:
        return "beyond the limit"
    if here.x > at.x:
        return "a nearer distance reconstructs and obeys better"
    return "nearer than the limit allows"
