"""What an evaluation has to draw: the characters of runs, in batches of equal shape."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pti_pipeline.adaptation import Adaptation, adaptation_of
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE
from pti_pipeline.characters import Characters, class_word
from pti_pipeline.errors import ModelError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.hashes import both
from pti_pipeline.meter import Case
from pti_pipeline.pivot import load_pivot
from pti_pipeline.steps.measured import CLASS
from pti_pipeline.tracking.find import Found, fetch


def to_measure(
    runs: Sequence[Found], known: Collection[str], base: BaseModel
) -> list[tuple[list[str], Case]]:
    """What is still to be measured, by name: the references first, then runs of equal shape.

    Parameters
    ----------
    runs : sequence of Found
        Trainings of one subject.
    known : collection of str
        Names of what was measured before.
    base : BaseModel

    Raises
    ------
    ModelError
        If a run was trained on another base, or lacks its weights.
    """
    todo = []
    if CLASS not in known:
        todo.append(([CLASS], Case(class_word(runs[0].tags["pti.initializer"]))))
    around = {r.tags["pti.pivot"]: r for r in runs if r.tags["pti.step"] == "finetune"}
    pivots = {name: run for name, run in around.items() if name not in known}
    if pivots:
        todo.append(([*pivots], Case(_load([*pivots.values()], base).who)))
    waiting = sorted((r for r in runs if r.id not in known), key=_shape)
    for _, group in groupby(waiting, _shape):
        alike = list(group)
        todo.append(([r.id for r in alike], _load(alike, base)))
    return todo


def _load(runs: Sequence[Found], base: BaseModel) -> Case:
    """Pivots and, for tuned runs, LoRAs of runs of equal shape."""
    for run in runs:
        name, expected = (run.tags[key] for key in ("pti.base", "pti.base_fingerprint"))
        if expected != base.fingerprint:
            told = both(expected, base.fingerprint)
            what = f"'{run.name}' was trained on base '{name}', not on '{base.name}' ({told})"
            raise ModelError("E404", what, f"use --base {name}")
    pivots, states = [], []
    config: dict[str, object] | None = None
    for run in runs:
        with TemporaryDirectory() as folder:
            pivots.append(load_pivot(fetch(run, f"pivot/{PIVOT_FILE}", Path(folder))))
            if run.tags["pti.step"] == "finetune":
                state, config = base.load_lora(fetch(run, f"lora/{LORA_FILE}", Path(folder)))
                states.append(state)
    vectors = torch.stack([pivot.embedding for pivot in pivots])
    return Case(Characters(pivots[0].token, vectors), tuple(states), config)


def _shape(run: Found) -> tuple[str, ...]:
    """Return what runs must have in common to be drawn in one batch."""
    names = ("vectors", "rank", "alpha", "regularizer", *adaptation_of(Adaptation()))
    return tuple(run.params.get(key, "") for key in names)
