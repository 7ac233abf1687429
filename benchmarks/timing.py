"""Interleaved timing: what is compared runs in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name : str
    ratio : float
        Of CPU times; what it is of stands in the name. NaN if it was not measured.
    goal : float
    aim : float
    spread : float
        Half the range between the quartiles of the ratio, over ``runs``.
    runs : int
    share : bool
        The ratio is a share that should be small, in percent.
    note : str
    """

    name: str
    ratio: float
    goal: float
    aim: float
    spread: float
    runs: int
    share: bool = False
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the gate is reached."""
        return self.ratio <= self.goal if self.share else self.ratio >= self.goal


def interleaved(
    cases: Mapping[str, Callable[[], object]], runs: int, warm: int = 2
) -> dict[str, list[float]]:
    """CPU seconds of each case, ``runs`` times in turn, after ``warm`` turns that don't count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warm + runs):
        for name, work in cases.items():
            start = _clock()
            work()
            if turn >= warm:
                seconds[name].append(_clock() - start)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float]:
    """Median ratio of paired times, and half the range between its quartiles."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return middle, (high - low) / 2


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
