"""A training of ten thousand steps, whose process must not grow."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory
from unittest.mock import patch

import psutil

from faults.places import forked
from faults.tiny import LEAST, build_base, build_pictures
from pti_pipeline.inversion import Moment
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, InvertSettings
from pti_pipeline.steps import invert as step
from pti_pipeline.steps.prepared import prepare_inversion
from pti_pipeline.tracking.sender import sender

STEPS = 10_000
WARM = 2_000
"""Steps after which the process has all that it needs."""
EVERY = 250
"""Steps between two looks."""


def measure(long: bool) -> dict[str, float]:
    """Train, and look at the process on the way; the long form does not differ."""
    with TemporaryDirectory() as folder:
        return forked(Path(folder), lambda: _watched(Path(folder)))


def _watched(folder: Path) -> dict[str, float]:
    base = build_base(folder / "base", "v_prediction", LEAST)
    ready = prepare_inversion(BaseSettings(str(base), "cpu"), _pictures(folder), "<c>", "cat")
    process, seen, train = psutil.Process(), [], step.invert

    def looked_at(*args: object) -> Iterator[Moment]:
        for moment in train(*args):  # type: ignore[arg-type]
            yield moment
            if moment.step % EVERY == 0:
                for post in sender()._posts:  # requests of a slow store are larger and longer
                    sender().drain(post, 60.0)
                gc.collect()
                now = process.memory_info().rss, process.num_fds(), process.num_threads()
                seen.append((moment.step, *now))

    with patch.object(step, "invert", looked_at):
        settings = InvertSettings(1e-4, steps=STEPS, batch_size=1)
        step.run_inversions(ready, [settings], WatchSettings(0, 0))
    for at, memory, files, threads in seen:  # shown if a goal is missed
        print(f"{at}: {memory / 2**20:.2f} MB, {files} files, {threads} threads", file=sys.stderr)
    warm = [row for row in seen if WARM <= row[0] < 2 * WARM]
    last = [row for row in seen if row[0] > STEPS - WARM]
    memory, files, threads = (  # medians: a larger request leaves the heap larger, once
        median_low(row[i] for row in last) - median_low(row[i] for row in warm) for i in (1, 2, 3)
    )
    return {
        "steps": seen[-1][0],
        "memory_growth_mb": memory / 2**20,
        "open_files": max(0, files),
        "threads": max(0, threads),
    }


def _pictures(folder: Path) -> Path:
    pictures = folder / "pictures"
    pictures.mkdir()
    return build_pictures(pictures)
