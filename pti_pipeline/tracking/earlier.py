"""Runs of earlier attempts at the same settings: found, and written on instead of new ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from mlflow import MlflowClient
from mlflow.entities import RunTag

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


def find_earlier(key: str, finished: bool = False, ours: bool = False) -> Found | None:
    """Find the last run with these settings, if it was interrupted; None if there is none.

    Parameters
    ----------
    key : str
        Their :func:`fingerprint`.
    finished : bool
        Whether one that is finished will do as well.
    ours : bool
        Whether it is a part of what this process works for: see :func:`unfinished`.

    Raises
    ------
    LockedError
        If a process is at it.
    """
    for run in reversed(find_runs(settings=key)):
        if run.status == "FINISHED":
            return run if finished else None
        if unfinished(run, ours):
            return run
    return None


def unfinished(run: Found, ours: bool = False) -> bool:
    """Whether a run was interrupted, so that going on with it makes sense.

    Of a part of what this process works for, such as a sweep's pack, only processes here are asked
    for: those elsewhere are gone, or this one would not have been given it.

    Raises
    ------
    LockedError
        If a process is at it.
    """
    if run.status == "RUNNING":
        check_dead(run, here=ours)
    return run.status != "FINISHED" and run.tags.get(LOST[0]) not in DIVERGED


def revive(client: MlflowClient, box: Outbox, earlier: Earlier, tags: Mapping[str, str]) -> Logged:
    """Send what was left of a run that goes on, make it RUNNING again, and say what it has.

    Parameters
    ----------
    client : MlflowClient
    box : Outbox
        The run's, which this process has.
    earlier : Earlier
    tags : mapping
        What may be another than before: where pictures are, who writes it.

    Raises
    ------
    StoreError
        If the store does not answer; the run is then as it was.
    """
    with answering():
        deliver(client, box)
        box.restart()
        run = client.get_run(box.run_id)
        points = {
            (key, point.step)
            for key in run.data.metrics
            if not key.startswith("system/")
            for point in client.get_metric_history(box.run_id, key)
            if point.step > earlier.step
        }
        drawn = {(each.key, each.step) for each in pictures(client, box.run_id)}
        for tag in LOST:
            if tag in run.data.tags:
                client.delete_tag(box.run_id, tag)
        client.log_batch(box.run_id, tags=[RunTag(*word) for word in tags.items()])
        client.update_run(box.run_id, status="RUNNING")
    return Logged(frozenset(points), frozenset(drawn))
