"""Runs whose process is gone: what they left behind is sent, and they are ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlflow import MlflowClient

from pti_pipeline.errors import UsageError
from pti_pipeline.tracking.find import Found, get_run, open_ones
from pti_pipeline.tracking.life import PLACE, is_ours, silent
from pti_pipeline.tracking.outbox import Outbox, left_ones, outbox_root, take
from pti_pipeline.tracking.sending import LOST, deliver
from pti_pipeline.tracking.store import answering, connect, store_uri
from pti_pipeline.tracking.write import add_tags


@dataclass(frozen=True)
class Synced:
    """What a synchronisation did.

    Attributes
    ----------
    entries : int
        That were sent.
    ended : tuple of str
        Names of the runs that were left open.
    refused : tuple of str
        Why the store did not take some entries.
    used : int
        Outboxes of processes that live.
    """

    entries: int = 0
    ended: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    used: int = 0

    def __add__(self, other: Synced) -> Synced:
        """What both did."""
        return Synced(
            self.entries + other.entries,
            self.ended + other.ended,
            self.refused + other.refused,
            self.used + other.used,
        )


def sync() -> Synced:
    """Send what dead processes left in their outboxes, and end the runs that they left open.

    A run counts as left if its outbox is here and no process has it, or if it has shown no sign of
    life for some minutes, wherever it ran.

    Raises
    ------
    StoreError
        If the store does not answer; what was not sent still waits.
    """
    client, root, done = connect(), outbox_root(store_uri()), Synced()
    with answering():
        for run_id in left_ones(root):
            box = take(root, run_id)
            done += _clear(client, box) if box else Synced(used=1)
    gone = [run for run in open_ones() if silent(run) and run.id not in left_ones(root)]
    return done + Synced(ended=tuple(end_lost(gone)))


def end_lost(runs: Iterable[Found]) -> list[str]:
    """End as FAILED those runs that still count as running though their process died; names."""
    client, root, ended = connect(), outbox_root(store_uri()), list[str]()
    with answering():
        for run in runs:
            box = take(root, run.id)
            ended += _clear(client, box).ended if box else _end(client, run.id)
    return ended


def _clear(client: MlflowClient, box: Outbox) -> Synced:
    """Send all of an outbox, once more what was refused, and end its run if that was left open.

    If the run goes on elsewhere, what was left of it here is done again there: it is let go.
    """
    try:
        if _is_elsewhere(box.run_id):
            box.restart()
            return Synced()
        box.retry()
        entries = sum(1 for _ in box.waiting())
        deliver(client, box)
        ended, refused = box.ends, tuple(box.refused)
    finally:
        box.close()
    return Synced(entries, () if ended else _end(client, box.run_id), refused)


def _is_elsewhere(run_id: str) -> bool:
    try:
        run = get_run(run_id)
    except UsageError:  # it was deleted
        return False
    return PLACE in run.tags and not is_ours(run)


def _end(client: MlflowClient, run_id: str) -> tuple[str, ...]:
    """End a run that still counts as running; return its name."""
    try:
        run = get_run(run_id)
    except UsageError:  # it was deleted
        return ()
    if run.status != "RUNNING":
        return ()
    add_tags(run, dict(zip(LOST, ("E905", "its process died"), strict=True)))
    client.set_terminated(run.id, "FAILED")
    return (run.name,)
