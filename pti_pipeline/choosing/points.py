"""What a sweep measured: one point an experiment, seeds of one learning rate pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pti_pipeline.leak import SIGNIFICANT, Verdict, judge, pooled_error, pooled_p

COLLAPSED = 0.5
"""Share of the reference's editability below which a point counts as collapsed."""
WORSE = -0.01
"""Gain over the reference's fixed-bank loss below which a point counts as collapsed."""


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
    auc, low, high : float
        The leak's AUC and its 95 % interval; NaN likewise.
    upper : float
        Its one-sided 95 % upper bound; NaN to take it from the interval.
    samples : int
        Samples that the leak was measured on; 0 if unknown.
    seed : int
        Of the training.
    lr : float
        Points of one learning rate and number of steps are pooled; NaN pools those of one distance.
    steps : int
    gain : float
        Share by which the fixed-bank loss is below the reference's; NaN if unknown.
    diverged : bool
        Whether the training was frozen; its distance then says nothing.
    """

    distance: float
    reconstruction: float
    editability: float = math.nan
    leak: float = math.nan
    auc: float = math.nan
    low: float = math.nan
    high: float = math.nan
    upper: float = math.nan
    samples: int = 0
    seed: int = 0
    lr: float = math.nan
    steps: int = 0
    gain: float = math.nan
    diverged: bool = False

    @property
    def x(self) -> float:
        """Decimal logarithm of the distance; infinite of a diverged training."""
        return math.inf if self.diverged else math.log10(max(self.distance, 1e-12))

    @property
    def broken(self) -> str:
        """How it diverged or collapsed, in words; empty if it did not."""
        if self.diverged or not math.isfinite(self.reconstruction):
            return "diverged"
        if self.editability < COLLAPSED:
            return f"collapsed: editability {self.editability:.2f} of the reference's"
        if self.gain < WORSE:
            return f"collapsed: bank loss {-self.gain:.1%} above the reference's"
        return ""

    @property
    def error(self) -> float:
        """Standard error of the AUC."""
        if math.isfinite(self.upper):
            return (self.upper - self.auc) / 1.645
        if math.isfinite(self.high):
            return (self.high - self.low) / 3.92
        return 1 / math.sqrt(6 * self.samples) if self.samples else math.nan


@dataclass(frozen=True)
class Pool:
    """Seeds of one learning rate together.

    Attributes
    ----------
    rows : tuple of int
        Indices of its points.
    x : float
        Mean log10 distance.
    leak : Verdict or None
        None if it was not measured.
    broken : bool
        Whether half of its points diverged or collapsed.
    """

    rows: tuple[int, ...]
    x: float
    leak: Verdict | None
    broken: bool

    @property
    def distance(self) -> float:
        """Geometric mean of the distances."""
        return math.inf if math.isinf(self.x) else 10**self.x

    @property
    def leaks(self) -> bool:
        """Whether a leak is detected."""
        return self.leak is not None and self.leak.p < SIGNIFICANT


def pool(points: Sequence[Point]) -> list[Pool]:
    """Put points of one learning rate and number of steps together, the nearest first."""
    groups: dict[tuple[float, ...], list[int]] = {}
    for i, point in enumerate(points):
        key = (point.lr, point.steps) if math.isfinite(point.lr) else (point.distance,)
        groups.setdefault(key, []).append(i)
    return sorted((_pool(points, rows) for rows in groups.values()), key=lambda p: p.x)


def _pool(points: Sequence[Point], rows: Sequence[int]) -> Pool:
    healthy = [points[i] for i in rows if not points[i].broken]
    placed = [p.x for p in healthy] or [points[i].x for i in rows]
    broken = 2 * len(healthy) <= len(rows)
    return Pool(tuple(rows), float(np.mean(placed)), _leak(healthy), broken)


def _leak(points: Sequence[Point]) -> Verdict | None:
    measured = [p for p in dict.fromkeys(points) if math.isfinite(p.leak)]
    if not measured:
        return None
    p = pooled_p([p.leak for p in measured])
    auc = float(np.mean([p.auc for p in measured]))
    return judge(auc, pooled_error([p.error for p in measured]), p)


def further(points: Sequence[Point], target: float = math.nan) -> str:
    """Name two learning rates beyond the largest, and the distances to expect there.

    Parameters
    ----------
    points : sequence of Point
    target : float
        x that is looked for, if it can be guessed; at most a decade and a half is believed.
    """
    return _beyond(points, target, 1)


def nearer(points: Sequence[Point]) -> str:
    """Name two learning rates below the smallest, and the distances to expect there."""
    return _beyond(points, math.nan, -1)


def _beyond(points: Sequence[Point], target: float, way: int) -> str:
    placed = [p for p in points if not p.diverged]
    healthy = [p for p in placed if not p.broken] or placed
    xs = [p.x for p in healthy]
    end = max(xs) if way > 0 else min(xs)
    rates = sorted({math.log10(p.lr) for p in healthy if math.isfinite(p.lr)})
    if len(rates) < 2:
        first, second = (f"{10 ** (end + way * step):.1g}" for step in (0.5, 1.0))
        return f"distances about {first} and {second}"
    slope, offset = np.polyfit([math.log10(p.lr) for p in healthy], xs, 1)
    slope = max(float(slope), 0.2)
    offset = float(np.mean(xs)) - slope * float(np.mean([math.log10(p.lr) for p in healthy]))
    ratio = float(np.median(np.diff(rates)))
    last = rates[-1] if way > 0 else rates[0]
    first_rate = last + way * ratio
    if end < target < end + 1.5:
        first_rate = max((target - offset) / slope, first_rate)
    found = [float(f"{10**rate:.1g}") for rate in (first_rate, first_rate + way * ratio)]
    places = [f"{10 ** (offset + slope * math.log10(rate)):.2g}" for rate in found]
    return f"lr {found[0]:g} and {found[1]:g} (distances about {places[0]} and {places[1]})"
