"""What was measured, when and where; the table of it, held against its gates."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks.timing import Row
from pti_pipeline import known_misses
from pti_pipeline.known_misses import KnownMiss
from pti_pipeline.machine import cores

RESULTS = Path(__file__).parent / "results.json"
KNOWN = Path(__file__).parent / "known.json"

Known = Mapping[str, KnownMiss]
"""Misses that are known, by the row's name: see :func:`read_known`."""
SLACK = 0.1
"""Share of its listed value by which a known miss may be worse: the spread of a busy machine."""

GROUPS = {
    "packs": ("packs against separate runs", "make bench"),
    "peers": ("other trainers' steps / ours", "make bench PEERS=<folder with their checkouts>"),
    "demo": ("the demo's main job, then / now", "make bench SINCE=<commit>"),
    "gpu": ("steps at Stable Diffusion 1.5's shapes, no GPU at hand", "make bench ONLY=gpu"),
    "gpu-xl": ("steps at Stable Diffusion XL's shapes, no GPU at hand", "make bench ONLY=gpu-xl"),
    "cards": ("memory of public models' trainings, no GPU at hand", "make bench ONLY=cards"),
}
"""What each group of rows is, and the command that measures it."""
ON_CPU = ("packs", "peers", "demo")
"""Those that need no GPU."""


@dataclass(frozen=True, kw_only=True)
class Result(Row):
    """A row, and where it comes from.

    Attributes
    ----------
    group : str
        One of :data:`GROUPS`.
    machine : str
    commit : str
        Of this project.
    date : str
        ISO 8601.
    """

    group: str
    machine: str
    commit: str
    date: str


def stamp(row: Row, group: str) -> Result:
    """Add this machine, commit and day to a row."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    today = date.today().isoformat()
    return Result(**asdict(row), group=group, machine=_machine(), commit=commit, date=today)


def read() -> list[Result]:
    """Read what was measured before."""
    return [Result(**row) for row in json.loads(RESULTS.read_text("utf-8"))]


def write(results: Iterable[Result]) -> None:
    """Keep results, groups in their order."""
    order = [*GROUPS]
    rows = [asdict(r) for r in sorted(results, key=lambda r: order.index(r.group))]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def read_known() -> Known:
    """Gates that were given up for now, by name."""
    return {miss.name: miss for miss in known_misses.read_known(KNOWN)}


def verdict(row: Row, known: Known) -> str:
    """``reached``, ``missed (known)`` or ``MISSED``; a dash where there is no gate.

    A known miss is one that is no worse than listed, but for :data:`SLACK`.
    """
    if row.goal is None:
        return "-"
    if row.reached:
        return "reached"
    miss = known.get(row.name)
    held = miss is not None and miss.holds(row.ratio, not row.share, SLACK)
    return "missed (known)" if held else "MISSED"


def line(row: Row, known: Known) -> str:
    """Say a row in one line."""
    text = f"{row.name}: {_number(row, row.ratio)} +- {row.spread:.2g}, "
    text += f"gate {_number(row, row.goal)}: {verdict(row, known)}"
    if row.name in known and not row.reached:
        miss = known[row.name]
        text += f", {miss.value} on {miss.date}: {miss.reason}"
    return f"{text} ({row.note})" if row.note else text


def table(results: Sequence[Result], known: Known, groups: Iterable[str] = GROUPS) -> str:
    """Lay groups of results out as Markdown; those without any say how to measure them."""
    lines = ["| what | measured | gate | aim | | of |", "|---|---|---|---|---|---|"]
    for group in groups:
        what, command = GROUPS[group]
        rows = [r for r in results if r.group == group]
        lines += [
            f"| {r.name} | {_number(r, r.ratio)} | {_number(r, r.goal)} | {_number(r, r.aim)} "
            f"| {verdict(r, known)} | {r.date}{'; ' if r.note else ''}{r.note} |"
            for r in rows
        ]
        if not rows:
            lines.append(f"| {what} | not measured: `{command}` | | | | |")
    return "\n".join(lines)


def _number(row: Row, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 100:.3g} %" if row.share else f"{value:.4g}"


def _machine() -> str:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{_processor()}, {cores()} cores, {gpu}"


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    names = [text.split(":")[1].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.machine()
