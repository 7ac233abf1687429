"""Gates that are missed for a known reason, told apart from those that are missed anew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KnownMiss:
    """A gate that is missed after several attempts, and why.

    Attributes
    ----------
    name : str
        Of what was measured.
    value : float
        What was measured.
    reason, date : str
    group : str
        To which it belongs, where names are not enough.
    """

    name: str
    value: float
    reason: str
    date: str
    group: str = ""

    def holds(self, value: float, below: bool, slack: float) -> bool:
        """Whether a value is not notably worse.

        Parameters
        ----------
        value : float
        below : bool
            Whether it misses its gate from below; else from above.
        slack : float
            Share of the known value by which it may be worse.
        """
        return value >= self.value * (1 - slack) if below else value <= self.value * (1 + slack)


def read_known(path: Path) -> list[KnownMiss]:
    """Read the misses that a JSON file lists; none without one."""
    if not path.is_file():
        return []
    return [KnownMiss(**row) for row in json.loads(path.read_text("utf-8"))]
