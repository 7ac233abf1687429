"""One line of the check: a number and, where there is one, its gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pti_pipeline.known_misses import KnownMiss, read_known

SLACK = 0.05
"""Share of its listed value by which a gate known to be missed may be missed further."""


@dataclass(frozen=True)
class Measure:
    """A number that says how good the world is.

    Attributes
    ----------
    group, name : str
        What was looked at, and what of it.
    value : float
    least, most : float, optional
        The gate.
    chance : float, optional
        What guessing would give.
    """

    group: str
    name: str
    value: float
    least: float | None = None
    most: float | None = None
    chance: float | None = None

    @property
    def passed(self) -> bool:
        """Whether there is no gate, or the value is within it; NaN never is."""
        if not self.gate:
            return True
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    @property
    def gate(self) -> str:
        """The gate in words; empty where there is none."""
        least = "" if self.least is None else f"≥ {self.least:g}"
        most = "" if self.most is None else f"≤ {self.most:.3g}"
        return " and ".join(filter(None, (least, most)))


def load_known(folder: Path) -> list[KnownMiss]:
    """Read the misses listed in a world's ``known.json``; none without one."""
    return read_known(folder / "known.json")


def covers(miss: KnownMiss, measure: Measure) -> bool:
    """Whether a measure that misses its gate is this miss, and not notably worse."""
    below = measure.least is not None and not measure.value >= measure.least
    same = (miss.group, miss.name) == (measure.group, measure.name)
    return same and miss.holds(measure.value, below, SLACK)


def verdict(measure: Measure, known: Sequence[KnownMiss]) -> str:
    """``reached``, ``missed (known)`` or ``missed``; empty where there is no gate."""
    if measure.passed:
        return "reached" if measure.gate else ""
    return "missed (known)" if any(covers(miss, measure) for miss in known) else "missed"
