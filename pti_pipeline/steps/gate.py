"""What keeps a character out of the registry: divergence, collapse, a detected leak."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pti_pipeline.errors import DivergedError, ModelError, PtiError, UsageError
from pti_pipeline.leak import SIGNIFICANT
from pti_pipeline.steps.swept import read_point
from pti_pipeline.tracking.find import Found, get_run

STEPS = ("invert", "finetune")
FORCE = "choose another run, or register it all the same with --force=yes"


@dataclass(frozen=True)
class Candidate:
    """A trained character, and the sweep that chose it, if one did.

    Attributes
    ----------
    run : Found
        Of finetune or invert, finished.
    sweep : Found or None
    """

    run: Found
    sweep: Found | None

    @property
    def measured(self) -> bool:
        """Whether its leak was measured."""
        return math.isfinite(_leak_p(self))


def find_candidate(run_id: str) -> Candidate:
    """Look up a run of finetune or invert, or the one that a sweep chose.

    Raises
    ------
    UsageError
        If there is no such run, it holds no character, or it did not finish.
    DivergedError
        If it diverged: then it has no weights.
    """
    found = get_run(run_id)
    found = get_run(found.tags.get("pti.choice", found.id))
    if found.tags.get("pti.step") not in STEPS:
        hint = "give a run of finetune or invert, or a sweep that chose one"
        raise UsageError("E215", f"run '{found.name}' holds no character", hint)
    if found.tags.get("pti.outcome") == "diverged":
        what = f"run '{found.name}' diverged at step {found.tags.get('pti.diverged_step', '?')}"
        raise DivergedError("E910", what, "train at a smaller learning rate")
    if found.status != "FINISHED":
        what = f"run '{found.name}' is {found.status.lower()}, not finished"
        raise UsageError("E251", what, "wait for it, or train again")
    return Candidate(found, _chooser(found))


def refusal(candidate: Candidate) -> PtiError | None:
    """Return why a character should not be registered; None if nothing is known against it.

    A leak is what ``select`` calls one: of the seeds together where a sweep chose the run, else of
    its own samples. The pivot of a tuning is judged too: it stays in the character.
    """
    run = candidate.run
    if (broken := _broken(run)) is not None:
        return DivergedError("E910", f"run '{run.name}' {broken}", FORCE)
    if (p := _leak_p(candidate)) < SIGNIFICANT:
        what = f"run '{run.name}' copies its pictures' positions: leak detected (p = {p:.2g})"
        return ModelError("E424", what, FORCE)
    if candidate.sweep is not None and candidate.sweep.tags.get("pti.sound") == "no":
        reason = candidate.sweep.tags.get("pti.choice_reason", "everything leaks or collapsed")
        return ModelError(
            "E424", f"run '{run.name}' was taken for want of a better: {reason}", FORCE
        )
    pivot = _pivot(run)
    why = None if pivot is None else refusal(pivot)
    return why and type(why)(why.code, f"the pivot of '{run.name}': {why.what}", FORCE)


def numbers(candidate: Candidate) -> Mapping[str, float]:
    """What was measured of the run, and what the sweep that chose it says of the choice."""
    sweep = candidate.sweep
    choice = {} if sweep is None else sweep.metrics
    known = {k: v for k, v in choice.items() if k.startswith("choice/")}
    return {**candidate.run.metrics, **known}


def _broken(run: Found) -> str | None:
    """How it collapsed, in words; None if it did not, or was not measured."""
    if "reconstruction/bank_gain" not in run.metrics:
        return None
    return read_point(run).broken or None


def _leak_p(candidate: Candidate) -> float:
    """p-value of the leak test; NaN if it was not measured."""
    against = "class" if candidate.run.tags["pti.step"] == "invert" else "pivot"
    known = numbers(candidate)
    return known.get("choice/leak_p", known.get(f"leak/{against}_p", math.nan))


def _chooser(run: Found) -> Found | None:
    try:
        sweep = get_run(run.tags.get("pti.sweep", ""))
    except UsageError:
        return None
    return sweep if sweep.tags.get("pti.choice") == run.id else None


def _pivot(run: Found) -> Candidate | None:
    try:
        return find_candidate(run.tags.get("pti.pivot", ""))
    except PtiError:  # it was deleted; the tuning has a copy of it
        return None
