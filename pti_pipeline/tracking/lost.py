"""Runs whose process is gone: what they left behind is sent, and they are ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from filelock import Timeout
from mlflow import MlflowClient

from pti_pipeline.tracking.find import Found, get_run, open_ones
from pti_pipeline.tracking.outbox import Outbox, left_outboxes, outbox_root
from pti_pipeline.tracking.sender import HEARTBEAT
from pti_pipeline.tracking.sending import deliver
from pti_pipeline.tracking.store import answering, connect, store_uri
from pti_pipeline.tracking.write import add_tags

DEAD = 300
"""Seconds without a sign of life after which a run's process counts as dead."""


@dataclass(frozen=True)
class Synced:
    """What a synchronisation did: entries sent, names of runs ended, and what was refused."""

    entries: int = 0
    ended: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def sync() -> Synced:
    """Send what dead processes left in their outboxes, and end the runs that they left open.

    A run counts as left if its outbox is here and no process has it, or if it has shown no sign of
    life for :data:`DEAD` seconds, wherever it ran.

    Raises
    ------
    StoreError
        If the store does not answer; what was not sent still waits.
    """
    client, done = connect(), Synced()
    with answering():
        for box in left_outboxes(outbox_root(store_uri())):
            done = _cleared(client, box, done)
        silent = [run for run in open_ones() if _silent(run) and not _in_use(run)]
        names = end_lost(silent)
    return replace(done, ended=(*done.ended, *names))


def end_lost(runs: Iterable[Found]) -> list[str]:
    """End as FAILED those runs that still count as running though their process died.

    Returns
    -------
    list of str
        Their names.
    """
    client = connect()
    ended: list[str] = []
    root = outbox_root(store_uri())
    for run in runs:
        if run.status == "RUNNING":
            if (root / run.id).is_dir():
                ended += _cleared(client, Outbox(root, run.id), Synced()).ended
            else:
                ended.append(_end(client, run))
    return ended


def _cleared(client: MlflowClient, box: Outbox, done: Synced) -> Synced:
    """Send all of an outbox, and end its run if that was left open."""
    try:
        entries = sum(1 for _ in box.waiting())
        deliver(client, box)
        ended, refused = box.ends, tuple(box.refused)
    finally:
        box.close()
    names = () if ended or refused else (_end(client, get_run(box.run_id)),)
    return Synced(done.entries + entries, done.ended + names, done.refused + refused)


def _end(client: MlflowClient, run: Found) -> str:
    add_tags(run, {"pti.error_code": "E905", "pti.error": "its process died"})
    client.set_terminated(run.id, "FAILED")
    return run.name


def _silent(run: Found) -> bool:
    beat = run.tags.get(HEARTBEAT, "")
    return beat.isdigit() and time.time() - int(beat) > DEAD


def _in_use(run: Found) -> bool:
    """Whether a process of this machine writes the run."""
    root = outbox_root(store_uri())
    if not (root / run.id).is_dir():
        return False
    try:
        Outbox(root, run.id).close()
    except Timeout:
        return True
    return False
