"""Checkpoints of a training under way, by which a later attempt goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

import torch

from pti_pipeline import checkpoint
from pti_pipeline.errors import ModelError
from pti_pipeline.prefixes import Settings, Shared
from pti_pipeline.state import State
from pti_pipeline.steps.attempts import Attempt, place
from pti_pipeline.tracking.members import EVERY, Course, View
from pti_pipeline.tracking.run import Run

PAUSE = 20.0
"""Seconds between two checkpoints at least. They are at every 50th step, so that a crash costs 50
steps, or where these are fast less than a minute."""


def restore(found: Attempt, experiments: int, device: torch.device) -> tuple[State, Course]:
    """Where the training of some experiments stands, and what became of them so far.

    Raises
    ------
    ModelError
        If the checkpoint lacks a part: without it, what follows would be another training.
    """
    start, kept = State.begin(experiments, device), found.kept
    if kept is None or not kept.step:
        return start, Course({}, {})
    if lacking := start.tensors().keys() - kept.tensors.keys():
        what = f"the checkpoint of step {kept.step} lacks {', '.join(sorted(lacking))}"
        raise ModelError("E428", what, "say --resume=no to train anew")
    frozen, last = ({int(k): n for k, n in kept.facts[name].items()} for name in ("frozen", "last"))
    return State.load(kept.tensors, kept.step, device), Course(frozen, last)


def begin(found: Attempt, runs: Sequence[Run]) -> None:
    """Remember, before the first step, what is being attempted, for whoever has to go on."""
    found.release()
    if found.kept is None:
        _save(found, runs, Course({}, {}), None)


def keeping(
    found: Attempt, runs: Sequence[Run], shared: Shared[Settings], state: State, course: Course
) -> View:
    """View that saves a checkpoint: the last one, so that it has what the others logged."""
    clock, steps = time.monotonic(), frozenset(range(EVERY, max(shared.ends), EVERY))

    def log(_: Sequence[Run], step: int) -> None:
        nonlocal clock
        going = step in steps and bool((state.alive & ~state.stop).any())
        if going and time.monotonic() - clock >= PAUSE:
            _save(found, runs, course, state)
            clock = time.monotonic()

    return View(steps, log)


def forget(runs: Sequence[Run]) -> None:
    """Remove the checkpoints of runs that need not go on."""
    shutil.rmtree(place(runs[0].id), ignore_errors=True)


def _save(found: Attempt, runs: Sequence[Run], course: Course, state: State | None) -> None:
    for run in runs:
        run.sync()
    facts = {
        "runs": [run.id for run in runs],
        "settings": found.facts,
        "threads": torch.get_num_threads(),
        "frozen": course.frozen,
        "last": course.last,
    }
    step, tensors = (state.step, state.tensors()) if state else (0, {})
    checkpoint.save(place(runs[0].id), step, tensors, facts)
