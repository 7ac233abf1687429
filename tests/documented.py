"""Which metrics and tags docs/reference/metrics.md tells, and between what bounds."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/reference/metrics.md"
COLUMNS = ["key", "meaning", "unit, range", "better"]
FIRST_CELL = re.compile(r"^\| (`.+?) \| ", re.MULTILINE)
OPEN = {r"<[a-z]+>": r"[\\w-]+", r"\\\.\\\.\\\.": ".+"}
"""What stands for other letters in an escaped name."""
BOTH = re.compile(r"(-?[\d.]+) to (-?[\d.]+)")
ONE = re.compile(r"(>=|<=|>) (-?[\d.]+|`[a-z_]+`)")
HOLDS = {">=": operator.ge, "<=": operator.le, ">": operator.gt}
ROUNDING = 1e-6
Bound = tuple[str, str]
"""A sign, and a number or the name of a metric of the same group."""


def rows() -> Iterator[list[str]]:
    """Cells of the tables of keys."""
    within = False
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells[:1] == ["key"]:
            assert cells == COLUMNS, line
            within = True
        elif within and cells and not set(line) <= set("|-"):
            yield cells
        within = within and bool(cells)


def names() -> list[str]:
    """Names in the first cells of the page's tables."""
    cells = FIRST_CELL.findall(PAGE.read_text("utf-8"))
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def untold(given) -> set[str]:
    """Those of the names that the page does not tell."""
    known = [_pattern(name) for name in names()]
    return {name for name in given if not any(each.fullmatch(name) for each in known)}


def ranges() -> list[tuple[str, str]]:
    """Each key of the page with its range; of several in a cell each has its own or all one."""
    found = []
    for keys, _, told, _ in rows():
        own, parts = re.findall(r"`([^`]+)`", keys), told.split(";")
        shared = parts if len(parts) == len(own) else [told] * len(own)
        found += zip(own, shared, strict=True)
    return found


def bounds(told: str, world: bool = True) -> list[Bound]:
    """Bounds that a range tells; none where anything may be."""
    if "in the world" in told and not world:
        return []
    if found := BOTH.search(told):
        return [(">=", found[1]), ("<=", found[2])]
    return ONE.findall(told)


def outside(metrics: Mapping[str, float], world: bool = True) -> dict[str, float]:
    """Those of one step's metrics that are not within their ranges."""
    known = [(_pattern(name), bounds(told, world)) for name, told in ranges()]
    return {
        name: value
        for name, value in metrics.items()
        for pattern, limits in known
        if pattern.fullmatch(name)
        for sign, limit in limits
        if not _holds(sign, value, _number(limit, name, metrics))
    }


def _holds(sign: str, value: float, limit: float) -> bool:
    """Whether it holds, to rounding but for a value that must not be 0."""
    slack = 0 if sign == ">" else ROUNDING * max(1.0, abs(limit))
    return HOLDS[sign](value + (-slack if sign == "<=" else slack), limit)


def _number(limit: str, name: str, metrics: Mapping[str, float]) -> float:
    if not limit.startswith("`"):
        return float(limit)
    return metrics.get(name.rpartition("/")[0] + "/" + limit.strip("`"), -math.inf)


def _pattern(name: str) -> re.Pattern[str]:
    escaped = re.escape(name)
    for sign, letters in OPEN.items():
        escaped = re.sub(sign, letters, escaped)
    return re.compile(escaped)
