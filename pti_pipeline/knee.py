"""Chooses a pivot and a light fine-tuning from what a sweep measured at its distances.

This first version chooses among the sweep's own points; it fits no curve and gives no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pti_pipeline.leak import SIGNIFICANT

GAIN = 0.9
"""Share of the largest gain that the pivot must reach."""
KEPT = 0.95
"""Share of the class word's editability that the pivot must keep."""
COLLAPSED = 0.5
"""Share of the reference's editability below which a point counts as collapsed."""


@dataclass(frozen=True)
class Point:
    """One experiment of a sweep.

    Attributes
    ----------
    distance : float
        ``distance/delta_norm``.
    reconstruction : float
        Higher is better.
    editability : float
        Share of what the reference (class word, or pivot) obeys; NaN if nothing reads it.
    leak : float
        One-sided p-value of the leak test; NaN if nothing reads layouts.
    """

    distance: float
    reconstruction: float
    editability: float = math.nan
    leak: float = math.nan

    @property
    def leaks(self) -> bool:
        """Whether a leak is detected."""
        return self.leak < SIGNIFICANT

    @property
    def broken(self) -> bool:
        """Whether it diverged or collapsed."""
        return not math.isfinite(self.reconstruction) or self.editability < COLLAPSED


@dataclass(frozen=True)
class Choice:
    """The chosen point's index, and why, in a sentence.

    ``sound`` is False if the point leaks or collapsed and was taken for want of a better one.
    """

    index: int
    reason: str
    sound: bool = True


def choose_pivot(points: Sequence[Point]) -> Choice:
    """Choose the nearest point that has most of the gain, keeps editability and does not leak.

    Parameters
    ----------
    points : sequence of Point
        In any order. Gain is counted from 0, the class word's.

    Raises
    ------
    ValueError
        If there is no usable point.
    """
    order = _usable(points)
    calm = [i for i in order if not points[i].leaks] or order
    kept = [i for i in calm if not points[i].editability < KEPT] or calm
    top = max(points[i].reconstruction for i in kept)
    index = next(i for i in kept if points[i].reconstruction >= GAIN * top or top <= 0)
    chosen = points[index]
    limits = []
    if len(calm) < len(order):
        limits.append("points whose leak is detected are left out")
    elif order and points[order[0]].leaks:
        limits.append("every point leaks, so the leak could not decide")
    if len(kept) < len(calm):
        limits.append(f"points below {KEPT:.0%} of the class word's editability are left out")
    elif any(points[i].editability < KEPT for i in calm):
        limits.append(f"no point keeps {KEPT:.0%} of the class word's editability")
    reason = (
        f"the nearest point (distance {chosen.distance:.3g}) with {GAIN:.0%} of the best gain in "
        f"reconstruction ({chosen.reconstruction:.3f} of {top:.3f})"
    )
    return Choice(index, "; ".join([reason, *limits]))


def choose_limit(points: Sequence[Point]) -> Choice:
    """Choose the farthest point before the first whose leak is detected or that collapsed.

    The first crossing counts: beyond collapse positions look random again.
    """
    order = sorted(range(len(points)), key=lambda i: points[i].distance)
    before: list[int] = []
    for i in order:
        if points[i].leaks or points[i].broken:
            break
        before.append(i)
    if not before:
        chosen = points[order[0]]
        text = f"even the nearest point (distance {chosen.distance:.3g}) leaks or collapsed"
        return Choice(order[0], f"{text}: sweep smaller learning rates", sound=False)
    best = before[-1]
    if len(before) == len(order):
        text = f"no limit in this range up to distance {points[best].distance:.3g}"
        return Choice(best, f"{text}: extend the sweep to larger learning rates")
    crossed = points[order[len(before)]]
    what = "collapse" if crossed.broken else f"leak (p = {crossed.leak:.2g})"
    return Choice(
        best,
        f"the farthest point (distance {points[best].distance:.3g}) before the first detected "
        f"{what} at distance {crossed.distance:.3g}",
    )


def _usable(points: Sequence[Point]) -> list[int]:
    order = sorted(range(len(points)), key=lambda i: points[i].distance)
    usable = [i for i in order if not points[i].broken]
    if not usable:
        raise ValueError("every experiment of the sweep diverged or collapsed")
    return usable
