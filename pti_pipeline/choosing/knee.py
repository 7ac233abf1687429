"""The knee of an inversion: the nearest pivot with most of the gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from pti_pipeline.choosing.choice import FEW, Choice, Place, conclude, locate
from pti_pipeline.choosing.fits import FEWEST, Fits, fit_points, over_seeds
from pti_pipeline.choosing.points import Point, further, nearer

GAIN = 0.9
"""Share of the fitted gain that the pivot must reach."""
KEPT = 0.95
"""Share of the class word's editability that the pivot must keep."""


def choose_pivot(points: Sequence[Point]) -> Choice:
    """Choose the measured pivot nearest to the knee.

    The knee is the nearest distance at which the fitted reconstruction has 90 % of its gain over
    the class word, not beyond that at which the fitted editability falls below 95 % of the class
    word's, and before the first distance whose leak is detected.

    Parameters
    ----------
    points : sequence of Point
        In any order; reconstruction is counted from 0, the class word's.

    Raises
    ------
    ValueError
        If every experiment diverged or collapsed.
    """
    fits = fit_points(points)
    if not any(not p.broken for p in points) or not fits.before:
        raise ValueError("every experiment of the sweep diverged or collapsed")
    if fits.reconstruction is None:
        return _among_points(points, fits)
    draws = over_seeds(points)
    x = knee(fits)
    place = locate(points, fits, draws, knee, _bracketed(fits, x))
    index = _nearest(points, fits, x)
    say = _found if place.bracketed else _missed
    reason = say(points, fits, index, place)
    why_not = partial(_why_not, points, fits, index)
    return conclude(
        "knee", points, fits, draws, index, place, reason, why_not, sound=bool(fits.clean)
    )


def knee(fits: Fits) -> float:
    """Return the knee's x; infinite where the range does not hold it."""
    gained = _gained(fits)
    return min(gained, _kept(fits), _unleaked(fits, gained))


def _gained(fits: Fits) -> float:
    curve = fits.reconstruction
    if curve is None:
        return math.inf
    if curve.flat:
        return -math.inf if curve.plateau > 0 else math.inf
    if curve.plateau <= 0:
        return math.inf
    if not curve.start < GAIN * curve.plateau:
        return -math.inf
    return curve.solve(GAIN * curve.plateau)


def _kept(fits: Fits) -> float:
    """Return the x beyond which editability is lost."""
    curve = fits.editability
    if curve is None:
        return math.inf
    if curve.flat:
        return math.inf if curve.plateau >= KEPT else -math.inf
    return curve.solve(KEPT)


def _unleaked(fits: Fits, gained: float) -> float:
    """Return the last x before the first detected leak, if that comes before the gain."""
    if not fits.clean or len(fits.clean) == len(fits.before):
        return math.inf
    return fits.clean[-1].x if fits.before[len(fits.clean)].x <= gained else math.inf


def _allowed(points: Sequence[Point], fits: Fits) -> list[int]:
    """Points that may be chosen: healthy, unleaking, editable; the last two as far as there are."""
    healthy = [i for p in fits.before for i in p.rows if not points[i].broken]
    quiet = [i for p in fits.clean if not p.leaks for i in p.rows if i in healthy]
    apart = [i for p in fits.before if not p.leaks for i in p.rows if i in healthy]
    calm = quiet or apart or healthy
    return [i for i in calm if points[i].x <= _kept(fits)] or calm


def _nearest(points: Sequence[Point], fits: Fits, x: float) -> int:
    allowed = sorted(_allowed(points, fits), key=lambda i: points[i].x)
    if math.isinf(x):
        return allowed[-1 if x > 0 else 0]
    return min(allowed, key=lambda i: abs(points[i].x - x))


def _bracketed(fits: Fits, x: float) -> bool:
    """Whether the knee was measured on both sides; editability also on the first collapse."""
    curve = fits.editability if x == _kept(fits) else fits.reconstruction
    return bool(fits.clean) and curve is not None and fits.pools[0].x <= x <= curve.high


def _found(points: Sequence[Point], fits: Fits, index: int, place: Place) -> str:
    x = place.x
    if x == _gained(fits):
        why = f"the nearest with {GAIN:.0%} of the gain in reconstruction"
    elif x == _kept(fits):
        why = f"beyond it less than {KEPT:.0%} of the class word's editability is left"
    else:
        why = "the last before a pivot leaks by itself"
    near = f"the measured run nearest to it is at distance {points[index].distance:.3g}"
    return f"knee at {place}, {why}; {near}"


def _missed(points: Sequence[Point], fits: Fits, index: int, place: Place) -> str:
    """Say why there is no knee, and which learning rates would show one."""
    at = f"at distance {points[index].distance:.3g}"
    if not fits.clean:
        return f"even the nearest pivots leak by themselves; add {nearer(points)}"
    none = "no knee in this range"
    if place.x <= fits.pools[0].x:
        lost = _kept(fits) <= place.x
        what = "editability is already lost" if lost else "the gain is already there"
        return f"{none}: {what} {at}, the nearest; add {nearer(points)}"
    curve = fits.reconstruction
    what = "nothing is gained" if curve is None or curve.flat else "the gain still grows"
    if fits.end < len(fits.pools):
        return f"{none}: {what} {at}, the last before the collapse; add learning rates in between"
    return f"{none}: {what} {at}, the farthest; extend to {further(points, _gained(fits))}"


def _among_points(points: Sequence[Point], fits: Fits) -> Choice:
    """Choose the nearest point with most of the best gain, without a curve."""
    allowed = sorted(_allowed(points, fits), key=lambda i: points[i].x)
    kept = [i for i in allowed if not points[i].editability < KEPT] or allowed
    top = max(points[i].reconstruction for i in kept)
    index = next(i for i in kept if points[i].reconstruction >= GAIN * top or top <= 0)
    chosen = points[index]
    reason = (
        f"{FEW}: with fewer than {FEWEST} distances, the nearest measured run (distance "
        f"{chosen.distance:.3g}) with {GAIN:.0%} of the best gain in reconstruction "
        f"({chosen.reconstruction:.3f} of {top:.3f})"
    )
    if any(points[i].editability < KEPT for i in allowed):
        reason += f" and {KEPT:.0%} of the class word's editability"
    if not fits.clean:
        reason += "; even the nearest pivots leak by themselves"
    nowhere = Place(math.nan, math.nan, math.nan, len({p.seed for p in points}), bracketed=False)
    why_not = partial(_why_not, points, fits, index)
    return conclude(
        "knee", points, fits, [], index, nowhere, reason, why_not, sound=bool(fits.clean)
    )


def _why_not(points: Sequence[Point], fits: Fits, index: int, i: int) -> str:
    point = points[i]
    own = next(k for k, p in enumerate(fits.pools) if i in p.rows)
    if point.broken:
        return point.broken
    if own >= fits.end:
        return "at or beyond the first collapse"
    leak = fits.pools[own].leak
    if leak is not None and fits.pools[own].leaks:
        return f"leaks by itself (p = {leak.p:.2g})"
    if own >= len(fits.clean):
        return "at or beyond the first sure leak"
    if point.x > _kept(fits):
        return f"editability is below {KEPT:.0%} of the class word's there"
    if index in fits.pools[own].rows:
        return "another seed of the chosen learning rate is nearer to the knee"
    return "less near to the knee"
