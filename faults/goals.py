"""What each part of the measurement must reach, in its short and in its long form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """Bound on a number.

    Attributes
    ----------
    short, long : float
        The bound in either form.
    least : bool
        Whether the number must be at least that, or at most.
    """

    short: float
    long: float
    least: bool = False

    def met(self, value: float, long: bool) -> bool:
        """Whether a number keeps to it."""
        bound = self.long if long else self.short
        return value >= bound if self.least else value <= bound

    def shown(self, long: bool) -> str:
        """Bound in a table's cell."""
        return f"{'>=' if self.least else '<='} {self.long if long else self.short:g}"


NONE = Goal(0, 0)

GOALS: Mapping[str, Mapping[str, Goal]] = {
    "kills": {
        "kill_points": Goal(25, 200, least=True),
        "killed_twice": Goal(4, 40, least=True),
        "bit_identical": Goal(1, 1, least=True),
        "corrupt": NONE,
        "duplicate_rows": NONE,
        "stale_files": NONE,
    },
    "inputs": {
        "inputs": Goal(500, 500, least=True),
        "tracebacks": NONE,
        "wrong_codes": NONE,
        "runs_left": NONE,
    },
    "fuzz": {
        "fuzz_cases": Goal(10_000, 1_000_000, least=True),
        "unclassified": NONE,
        "hangs": NONE,
    },
    "injection": {
        "parameters": Goal(100, 100, least=True),
        "payloads": Goal(40, 40, least=True),
        "executions": NONE,
        "changed": NONE,
        "real_runs": Goal(0, 4, least=True),
        "failed": NONE,
    },
    "pickles": {
        "loaders": Goal(100, 100, least=True),
        "executions": NONE,
        "deserialisations": NONE,
        "tracebacks": NONE,
        "wrong_codes": NONE,
        "unsaid": NONE,
    },
    "growth": {
        "steps": Goal(10_000, 10_000, least=True),
        "memory_growth_mb": Goal(5, 5),
        "open_files": NONE,
        "threads": NONE,
    },
    "outages": {
        "outages": Goal(7, 21, least=True),
        "longest_minutes": Goal(30, 30, least=True),
        "refused_calls": Goal(7, 21, least=True),
        "lost_answers": Goal(7, 21, least=True),
        "lost_points": NONE,
        "doubled_points": NONE,
        "unfinished": NONE,
    },
    "mutants": {
        "mutants": Goal(300, 300, least=True),
        "mutation_score": Goal(0.85, 0.85, least=True),
    },
}
"""By part, then by number."""
LONG_ONLY = ("mutants",)
"""Parts that have no short form."""
