"""Which process writes a run: on this machine, by its outbox; elsewhere, by its signs of life."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from pti_pipeline.errors import LockedError, ResourceError
from pti_pipeline.tracking.find import Found
from pti_pipeline.tracking.outbox import LOCK, OWNER, outbox_root
from pti_pipeline.tracking.store import local_folder, store_uri

HEARTBEAT = "pti.heartbeat"
"""Tag of a run: when its process showed last that it lives, in whole seconds since 1970."""
HOST = "pti.host"
"""Tag of a run: name of the machine that writes it."""
PLACE = "pti.place"
"""Tag of a run: where its outbox is."""
DEAD = 300
"""Seconds without a sign of life after which a run's process counts as dead."""


def heartbeat() -> dict[str, str]:
    """Tag that says that the process of a run lives now."""
    return {HEARTBEAT: str(int(time.time()))}


def birth() -> dict[str, str]:
    """Tags of a run that begins now, or goes on, written from here."""
    return {HOST: socket.gethostname(), PLACE: _here(), **heartbeat()}


def is_ours(run: Found) -> bool:
    """Whether a run was last written from here."""
    return run.tags.get(PLACE) == _here()


def silent(run: Found) -> bool:
    """Whether a run's process has shown no sign of life for :data:`DEAD` seconds."""
    beat = run.tags.get(HEARTBEAT, "")
    return beat.isdigit() and time.time() - int(beat) > DEAD


def user(root: Path, run_id: str) -> str:
    """Who has an outbox at this moment, in words; empty if nobody has."""
    folder = root / run_id
    if not (folder / LOCK).is_file():
        return ""
    try:
        with FileLock(folder / LOCK, timeout=0.5):  # who only looks, as we do, is soon gone
            return ""
    except Timeout:
        return _owner(folder)


def check_dead(run: Found, here: bool = False) -> None:
    """See that nobody writes a run that counts as running; if ``here``, nobody with our outboxes.

    Who writes from here has the run's outbox; who writes from elsewhere shows signs of life.

    Raises
    ------
    LockedError
    """
    who = user(outbox_root(store_uri()), run.id)
    if not (who or here or is_ours(run) or silent(run)):
        who = f"a process on {run.tags.get(HOST, 'another machine')}"
    if who:
        what = f"run {run.id}, which has these very settings, is being written by {who}"
        raise LockedError("E701", what, f"wait for its end; if it died, for {DEAD // 60} minutes")


def _here() -> str:
    """Name the folder of our store's outboxes, whatever others call its machine; 32 letters.

    It is made up once. Only of runs that were written from here do the locks of outboxes tell
    whether someone writes them.
    """
    path = local_folder(store_uri(), "place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_name(uuid4().hex)
            fresh.write_text(fresh.name, "utf-8")
            os.replace(fresh, path)
        return path.read_text("utf-8")
    except OSError as error:
        what = f"what is logged can't be kept on disk ({error})"
        raise ResourceError("E605", what, "free some space there, or make it writable") from error


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER).read_text("utf-8")
    except OSError:
        return "another process"
