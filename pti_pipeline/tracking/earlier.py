"""Runs of earlier attempts at the same settings: found, and written on instead of new ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from mlflow import MlflowClient

from pti_pipeline.tracking.find import Found, find_runs
from pti_pipeline.tracking.image_grid import pictures
from pti_pipeline.tracking.life import check_dead
from pti_pipeline.tracking.outbox import Outbox
from pti_pipeline.tracking.sending import LOST, deliver
from pti_pipeline.tracking.store import answering

SETTINGS = "pti.settings"
"""Tag of a run: the fingerprint of all that decides what it gives."""
DIVERGED = ("E901", "E902")
"""Errors of runs that would only diverge again."""


@dataclass(frozen=True)
class Earlier:
    """A run to be written on, and the step that its training goes on from."""

    run: Found
    step: int


@dataclass(frozen=True)
class Logged:
    """What a run has already beyond the step that it goes on from, and is not logged again.

    Attributes
    ----------
    points : frozenset of (str, int)
        Metrics, by key and step.
    pictures : frozenset of (str, int)
        Pictures of the image grid, by key and step.
    """

    points: frozenset[tuple[str, int]] = frozenset()
    pictures: frozenset[tuple[str, int]] = frozenset()


def fingerprint(settings: Mapping[str, object]) -> str:
    """Digest of settings, whatever order they are in; 32 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:32]


def find_earlier(key: str, nested: bool = False) -> Found | None:
    """Find the last run with these settings that was interrupted; None if there is none.

    Parameters
    ----------
    key : str
        Their :func:`fingerprint`.
    nested : bool
        Whether they are of a part of something that this process works for: then a finished run
        will do as well.

    Raises
    ------
    LockedError
        If a process is at it.
    """
    for run in reversed(find_runs(settings=key)):
        if unfinished(run, nested) or (nested and run.status == "FINISHED"):
            return run
    return None


def unfinished(run: Found, nested: bool = False) -> bool:
    """Whether a run was interrupted, so that going on with it makes sense.

    Of a part of something, it is only asked who is at it on this machine: on others nobody is
    without knowledge of the whole, which is this process's.

    Raises
    ------
    LockedError
        If a process is at it.
    """
    if run.status == "RUNNING":
        check_dead(run, here=nested)
    return run.status != "FINISHED" and run.tags.get(LOST[0]) not in DIVERGED


def revive(client: MlflowClient, box: Outbox, earlier: Earlier) -> Logged:
    """Send what was left of a run that goes on, make it RUNNING again, and say what it has.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    with answering():
        deliver(client, box)
        run = client.get_run(box.run_id)
        for tag in LOST:
            if tag in run.data.tags:
                client.delete_tag(box.run_id, tag)
        client.update_run(box.run_id, status="RUNNING")
        points = {
            (key, point.step)
            for key in run.data.metrics
            if not key.startswith("system/")
            for point in client.get_metric_history(box.run_id, key)
            if point.step > earlier.step
        }
        drawn = {(each.key, each.step) for each in pictures(client, box.run_id)}
    return Logged(frozenset(points), frozenset(drawn))
