"""Axes: which interval is shown, where its ticks stand, and where on it a value falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TICKS = 6
"""Ticks of an axis, at most."""


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``, linear or logarithmic, with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Place a value on the axis: 0 at ``low``, 1 at ``high``; held within."""
        low, high, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, v = math.log(low), math.log(high), math.log(v)
        return (v - low) / (high - low)


def log_axis(values: Sequence[float]) -> Axis:
    """Logarithmic axis around all positive values, with ticks at 1, 2 and 5 of each decade.

    Examples
    --------
    >>> log_axis([0.1, 0.9]).ticks
    (0.1, 0.2, 0.5, 1.0)
    """
    known = [v for v in values if math.isfinite(v) and v > 0] or [1.0]
    low, high = ends = min(known), max(known)
    room = (high / low) ** 0.06 if high > low else 2.0
    low, high = low / room, high * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{d}e{n}") for n in decades for d in digits]
        inside = tuple(t for t in ticks if low <= t <= high)
        if len(inside) <= TICKS:
            break
    if len(inside) < 2:  # a narrow range: label its ends
        inside = tuple(sorted({float(f"{v:.3g}") for v in ends}))
    return Axis(low, high, inside, logarithmic=True)


def linear_axis(values: Sequence[float], low: float, high: float) -> Axis:
    """Linear axis from ``low`` to ``high``, or farther where values lie outside; round ticks.

    Examples
    --------
    >>> linear_axis([0.2, 1.1], 0, 1).ticks
    (0.0, 0.5, 1.0)
    """
    known = [v for v in values if math.isfinite(v)]
    low, high = min([low, *known]), max([high, *known])
    room = 0.04 * (high - low)
    low, high = low - room * (low < 0), high + room
    step = _round_step((high - low) / (TICKS - 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, tuple(round(n * step, 12) for n in range(first, last + 1)))


def _round_step(least: float) -> float:
    """Smallest of 1, 2, 5 times a power of ten that is no less than ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(d * power for d in (1, 2, 5, 10) if d * power >= least * (1 - 1e-9))
