"""One line of the check: a number and, where there is one, its gate."""

from __future__ import annotations

from dataclasses import dataclass


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
