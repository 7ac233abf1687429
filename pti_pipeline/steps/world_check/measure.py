"""One line of the check: a number and, where there is one, its gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class KnownMiss:
    """A gate that is missed after several attempts, and why.

    Attributes
    ----------
    group, name : str
        Of the :class:`Measure`.
    value : float
        What was measured.
    reason, date : str
    """

    group: str
    name: str
    value: float
    reason: str
    date: str

    def covers(self, measure: Measure) -> bool:
        """Whether ``measure`` is this miss, and not notably worse."""
        if (self.group, self.name) != (measure.group, measure.name):
            return False
        if measure.least is not None and not measure.value >= measure.least:
            return measure.value >= self.value * (1 - SLACK)
        return measure.value <= self.value * (1 + SLACK)


def load_known(folder: Path) -> list[KnownMiss]:
    """Read the misses listed in a world's ``known.json``; none without one."""
    path = folder / "known.json"
    if not path.is_file():
        return []
    return [KnownMiss(**row) for row in json.loads(path.read_text("utf-8"))]


def verdict(measure: Measure, known: Sequence[KnownMiss]) -> str:
    """``reached``, ``missed (known)`` or ``missed``; empty where there is no gate."""
    if measure.passed:
        return "reached" if measure.gate else ""
    return "missed (known)" if any(k.covers(measure) for k in known) else "missed"
