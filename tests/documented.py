"""Which metrics and tags docs/reference/metrics.md tells."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/reference/metrics.md"
FIRST_CELL = re.compile(r"^\| (`.+?) \| ", re.MULTILINE)
OPEN = re.compile(r"\\\.\\\.\\\.|<[a-z]+>")
"""What stands for any letters in an escaped name."""


def patterns() -> list[re.Pattern[str]]:
    """Names in the first cells of the page's tables; ``..._high`` is of the group before it."""
    found, group = [], ""
    for cell in FIRST_CELL.findall(PAGE.read_text("utf-8")):
        for name in re.findall(r"`([^`]+)`", cell):
            if name.startswith("..."):
                name = group + name
            group = name[: name.find("/") + 1]
            found.append(re.compile(OPEN.sub(".*", re.escape(name))))
    return found


def untold(names) -> set[str]:
    """Those of the names that the page does not tell."""
    known = patterns()
    return {name for name in names if not any(each.fullmatch(name) for each in known)}
