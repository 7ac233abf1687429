"""The demo's main job at an earlier commit against today's."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import Row, ratio

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "steps": "300",
    "samples": "128",
    "edit-seeds": "2",
    "sample-every": "150",
    "batch-size": "4",
    "inversion-lrs": "0.0003,0.001,0.003,0.01",
    "tuning-lrs": "0.0003,0.001,0.003,0.01",
}
"""The Makefile's, and what entry points leave to their defaults, which have changed."""
SINCE = {"seeds": "0", "probes": "0", "regularizer": "none"}
"""Leaves out what the earlier commit could not do. More edit prompts and the report stay in."""


def rows(commit: str, turns: int, settings: Mapping[str, str] = SETTINGS) -> Iterator[Row]:
    """Run both, in turns.

    Seconds on the wall, which says little unless the machine is quiet otherwise: part of the gain
    is that packs use every core at once.
    """
    with TemporaryDirectory() as folder:
        before = _export(commit, Path(folder))
        pairs = [
            (_seconds(before, settings), _seconds(ROOT, {**settings, **SINCE}))
            for _ in range(turns)
        ]
    then, now = zip(*pairs, strict=True)
    value, spread = ratio(then, now)
    name = "main job of the demo: the commit that resolved the first issue / now"
    medians = " and ".join(f"{statistics.median(s):.0f}" for s in (then, now))
    note = f"{medians} s on the wall, machine otherwise quiet; commit {commit}"
    yield Row(name, value, 1.5, 2.5, spread, turns, note=note)


def _export(commit: str, folder: Path) -> Path:
    command = ["git", "-C", str(ROOT), "archive", commit]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        file.extractall(folder, filter="data")
    return folder


def _seconds(tree: Path, settings: Mapping[str, str]) -> float:
    """Run the main job of a tree in a store that is thrown away."""
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "pti_pipeline", "main", *options]
    command.append(f"--images={tree / 'examples' / 'mochi'}")
    # threads as the job itself sets them, not as the other rows need them
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with TemporaryDirectory() as store:
        places = {"PYTHONPATH": str(tree), "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
        start = time.perf_counter()
        subprocess.run(command, cwd=store, env=kept | places, check=True)
        return time.perf_counter() - start
