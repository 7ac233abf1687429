"""Runs to be made, or gone on with where an earlier attempt at the same settings has left some.

Every run of a training, a sweep or a study is tagged with the fingerprint of all that decides what
it gives. As long as it is not finished, a folder of this machine keeps its checkpoints.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from pti_pipeline import __version__, checkpoint
from pti_pipeline.checkpoint import Checkpoint
from pti_pipeline.errors import LockedError, UsageError
from pti_pipeline.steps import beginning
from pti_pipeline.tracking import outbox
from pti_pipeline.tracking.earlier import (
    SETTINGS,
    Earlier,
    find_earlier,
    fingerprint,
    unfinished,
)
from pti_pipeline.tracking.find import Found, get_run
from pti_pipeline.tracking.lost import end_lost
from pti_pipeline.tracking.store import local_folder, store_uri

AUTO, NO = "auto", "no"

Facts = Mapping[str, Any]
"""All that decides what a run gives, as JSON can say it."""


@dataclass(frozen=True)
class Within:
    """What a training is part of.

    Attributes
    ----------
    study, sweep : str
        Run ids; empty of a training by itself.
    pack : str
        Which pack of the sweep.
    varied : str
        Name of the setting that the sweep varies beside learning rate and seed.
    """

    study: str = ""
    sweep: str = ""
    pack: str = ""
    varied: str = ""

    @property
    def nested(self) -> bool:
        """Whether it is part of something that may itself go on."""
        return bool(self.study or self.sweep)

    @property
    def tags(self) -> dict[str, str]:
        """Of its runs."""
        return {"pti.study": self.study, "pti.sweep": self.sweep, "pti.pack": self.pack}


ALONE = Within()


@dataclass(frozen=True)
class Attempt:
    """Runs to be made or gone on with, one for each of some settings.

    Attributes
    ----------
    facts : tuple of mapping
    runs : tuple of Found or None
        Of an earlier attempt.
    kept : Checkpoint or None
        What that one kept last.
    within : Within
    """

    facts: tuple[Facts, ...]
    runs: tuple[Found | None, ...]
    kept: Checkpoint | None = None
    within: Within = ALONE

    @property
    def tags(self) -> list[dict[str, str]]:
        """By which a later attempt finds the runs."""
        return [{SETTINGS: fingerprint(each)} for each in self.facts]

    @property
    def finished(self) -> list[str]:
        """Ids of the runs, if all of them were finished by an earlier attempt; else empty."""
        ended = [run.id for run in self.runs if run and run.status == "FINISHED"]
        return ended if len(ended) == len(self.facts) else []

    @property
    def step(self) -> int:
        """Number of updates that are not done again."""
        return self.kept.step if self.kept else 0

    def release(self) -> None:
        """Let other processes look for the runs: now they tell that this is under way."""
        beginning.release(fingerprint(self.facts[0]))

    @property
    def earlier(self) -> list[Earlier | None]:
        """The runs, as what writes on them takes them."""
        return [Earlier(run, self.step) if run else None for run in self.runs]


def attempt(facts: Sequence[Facts], resume: str = AUTO, within: Within = ALONE) -> Attempt:
    """Find what an earlier attempt at some settings left.

    Parameters
    ----------
    facts : sequence of mapping
        Settings of each run.
    resume : str
        ``"auto"``, ``"no"``, or the id of the one run to go on with.
    within : Within
        What is a part of a sweep or study is not done again once it is finished; and at a pack of
        a sweep nobody elsewhere can be, as this process works for that sweep.

    Raises
    ------
    UsageError
        If the run given can't go on, or not with these settings.
    LockedError
        If another process is at it.
    """
    versions = {"version": __version__, "torch": torch.__version__}
    given = tuple({**each, **versions} for each in facts)
    if resume == NO:
        return Attempt(given, (None,) * len(given), within=within)
    beginning.begin_alone(fingerprint(given[0]))
    if resume == AUTO:
        ours = bool(within.sweep)
        runs = tuple(find_earlier(fingerprint(each), within.nested, ours) for each in given)
    else:
        runs = (_given(resume, given[0]),)
    found = Attempt(given, runs, _kept(runs), within)
    if found.finished:
        end_lost([run for run in runs if run])  # their process may have died right after their ends
        tidy()
        found.release()
    elif runs[0]:
        step = f" at step {found.step}" if found.kept else ""
        print(f"Going on with run {runs[0].id}{step}", file=sys.stderr)
    return found


def _kept(runs: Sequence[Found | None]) -> Checkpoint | None:
    """What these very runs kept last; one of others is of no use to anybody."""
    if runs[0] is None:
        return None
    kept = checkpoint.newest(place(runs[0].id))
    if kept and kept.facts["runs"] != [run and run.id for run in runs]:
        shutil.rmtree(place(runs[0].id), ignore_errors=True)
        return None
    if kept:
        torch.set_num_threads(kept.facts["threads"])  # others would round otherwise
    return kept


def place(run_id: str) -> Path:
    """Folder of the checkpoints of some runs, named by the first."""
    return local_folder(store_uri(), "checkpoints") / run_id


def tidy() -> None:
    """Remove what processes that died left behind: of finished runs, and locks that nobody has."""
    outbox.tidy(outbox.outbox_root(store_uri()))
    for folder in local_folder(store_uri(), "checkpoints").glob("*"):
        try:
            done = not unfinished(get_run(folder.name))
        except (UsageError, LockedError) as error:  # it was deleted; or it is being written
            done = isinstance(error, UsageError)
        if done:
            shutil.rmtree(folder, ignore_errors=True)
    beginning.tidy()


def _given(run_id: str, facts: Facts) -> Found:
    """Look up the run that the user wants to go on with."""
    run = get_run(run_id)
    if not unfinished(run) or SETTINGS not in run.tags:
        state = run.tags.get("pti.outcome", run.status.lower())
        what = f"run '{run.name}' ({run_id}) can't go on: it is {state}"
        raise UsageError("E281", what, "leave --resume out to train anew")
    if run.tags[SETTINGS] != fingerprint(facts):
        kept = checkpoint.newest(place(run_id))
        told = differences(kept.facts["settings"][0], facts) if kept else ["settings"]
        what = f"run '{run.name}' ({run_id}) has other {'; '.join(told)}"
        raise UsageError("E282", what, "give the same, or leave --resume out to train anew")
    return run


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Say where two values that JSON can say differ, one line each.

    Examples
    --------
    >>> differences({"lr": 0.1, "watch": {"probes": 20}}, {"lr": 0.2, "watch": {"probes": 20}})
    ['lr: 0.1 there, 0.2 here']
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        pairs = [(key, there.get(key), here.get(key)) for key in {**there, **here}]
    elif isinstance(there, list | tuple) and isinstance(here, list | tuple):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip_longest(there, here))]
    else:
        return [] if there == here else [f"{name}: {there} there, {here} here"]
    return [line for key, a, b in pairs for line in differences(a, b, f"{name} {key}".strip())]
