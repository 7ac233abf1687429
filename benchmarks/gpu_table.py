"""Packs on a GPU as a table: a line for each stage and size, a column for each mode."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.gpu import PACKS
from benchmarks.modes import MODES
from benchmarks.ours import STAGES
from benchmarks.results import Result

ROW = re.compile(r"GPU, (\S+): (\d+) single (\w+) steps, eager / one pack of \d+, (.*)")
NOTE = re.compile(r"(?P<ms>[\d.]+) ms, (?:(?P<gib>[\d.]+) GiB, )?(?P<share>\d+)% of")


def measured(results: Sequence[Result]) -> dict[tuple[str, str, int, str], Result]:
    """Rows by model, stage, size of the pack and mode."""
    found = {}
    for row in results:
        if match := ROW.match(row.name):
            model, size, stage, mode = match.groups()
            found[model, stage, int(size), mode] = row
    return found


def gpu_table(results: Sequence[Result]) -> str:
    """Lay them out as Markdown; what was not measured is a dash."""
    found = measured(results)
    lines = [f"| model, step | K | {' | '.join(MODES)} |", "|---|---|" + "---|" * len(MODES)]
    for model, sizes in PACKS.items():
        for stage in STAGES:
            for size in sizes:
                cells = [_cell(found.get((model, stage, size, mode))) for mode in MODES]
                lines.append(f"| {model}, {stage} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Result | None) -> str:
    if row is None or not (note := NOTE.match(row.note)):
        return "-"
    memory = f", {note['gib']} GiB" if note["gib"] else ""
    return f"**{row.ratio:.3g}**; {note['ms']} ms{memory}, {note['share']} %"
