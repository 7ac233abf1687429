"""What was measured, when and where; written to ``docs/results/faults.json``."""

from __future__ import annotations

import json
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from filelock import FileLock

from pti_pipeline.machine import cores

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "faults.json"
UNKNOWN = "unknown"
"""Commit of a source tree without git."""


def read() -> dict[str, dict[str, Any]]:
    """Results by part, then by form, ``short`` or ``long``; empty at first."""
    found: dict[str, dict[str, Any]] = {}
    if RESULTS.is_file():
        found = json.loads(RESULTS.read_text("utf-8"))
    return found


def write(
    part: str, form: str, numbers: Mapping[str, float], seconds: float, cpu_seconds: float
) -> None:
    """Keep the numbers of a part, with its time, this commit, command, machine and day."""
    row = {
        "numbers": dict(numbers),
        "seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
        "commit": commit(),
        "command": "make faults-long" if form == "long" else "make faults",
        "machine": f"{platform.machine()}, {cores()} cores, Python {platform.python_version()}",
        "date": date.today().isoformat(),
    }
    with FileLock(Path(tempfile.gettempdir()) / "pti-faults.lock"):  # parts run side by side
        known = read()
        known.setdefault(part, {})[form] = row
        text = json.dumps(dict(sorted(known.items())), indent=1)
        RESULTS.write_text(text + "\n", encoding="utf-8")


def commit() -> str:
    """Short hash of this tree's commit; with ``+`` if files, beside results, differ from it."""
    try:
        name = _git("rev-parse", "--short=7", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":(exclude)docs/results")
    except (OSError, subprocess.CalledProcessError):  # a source tree without git
        return UNKNOWN
    return f"{name}+" if changed else name


def certain(name: str) -> bool:
    """Whether a commit says all of what was measured: no file differs from it."""
    return name != UNKNOWN and not name.endswith("+")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
