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
        Of CPU times, unless the note says otherwise; what it is of stands in the name.
    goal, aim : float or None
        None where nothing was promised.
    spread : float
        Half the range between the quartiles of the ratio, over ``runs``.
    runs : int
    share : bool
        The ratio is a share that should be small, in percent.
    note : str
    """

    name: str
    ratio: float
    goal: float | None
    aim: float | None
    spread: float
    runs: int
    share: bool = False
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the gate is reached; so it is where there is none."""
        if self.goal is None:
            return True
        return self.ratio <= self.goal if self.share else self.ratio >= self.goal


def interleaved(
    cases: Mapping[str, Callable[[], object]], runs: int, warm: int = 2
) -> dict[str, list[float]]:
    """CPU seconds of each case, ``runs`` times in turn, after ``warm`` turns that don't count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warm + runs):
        for name, work in cases.items():
            start = clock()
            work()
            if turn >= warm:
                seconds[name].append(clock() - start)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float]:
    """Median ratio of paired times, and half the range between its quartiles (0 of one pair)."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    if len(each) == 1:
        return each[0], 0.0
    low, middle, high = statistics.quantiles(each, n=4)
    return middle, (high - low) / 2


def clock(device: str = "cpu") -> float:
    """CPU seconds of this process; seconds on the wall where a GPU does the work."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
