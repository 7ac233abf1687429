"""Numbers as the report writes them: a true minus, and a dash for what is unknown."""

from __future__ import annotations

import math


def number(value: float, form: str = ".3g") -> str:
    """Three digits, unless told otherwise.

    Examples
    --------
    >>> number(0.52264), number(float("nan"))
    ('0.523', '–')
    """
    return f"{value:{form}}".replace("-", "\u2212") if math.isfinite(value) else "\u2013"


def share(value: float) -> str:
    """Three decimals, for what lies about between 0 and 1."""
    return number(value, ".3f")


def between(low: float, high: float, form: str = ".3g") -> str:
    """Interval in brackets, to stand behind a value; nothing if it is unknown."""
    known = math.isfinite(low) and math.isfinite(high)
    return f" ({number(low, form)} to {number(high, form)})" if known else ""
