"""Signs of life of the processes that write runs."""

from __future__ import annotations

import socket
import time

from pti_pipeline.errors import LockedError
from pti_pipeline.tracking.find import Found
from pti_pipeline.tracking.outbox import outbox_root, user
from pti_pipeline.tracking.store import store_uri

HEARTBEAT = "pti.heartbeat"
"""Tag of a run: when its process showed last that it lives, in whole seconds since 1970."""
HOST = "pti.host"
"""Tag of a run: the machine that it was begun on."""
DEAD = 300
"""Seconds without a sign of life after which a run's process counts as dead."""


def heartbeat() -> dict[str, str]:
    """Tag that says that the process of a run lives now."""
    return {HEARTBEAT: str(int(time.time()))}


def birth() -> dict[str, str]:
    """Tags of a run that begins now, on this machine."""
    return {HOST: socket.gethostname(), **heartbeat()}


def silent(run: Found) -> bool:
    """Whether a run's process has shown no sign of life for :data:`DEAD` seconds."""
    beat = run.tags.get(HEARTBEAT, "")
    return beat.isdigit() and time.time() - int(beat) > DEAD


def check_dead(run: Found, here: bool = False) -> None:
    """See that nobody writes a run that counts as running; if ``here``, nobody on this machine.

    A process of this machine has its outbox; one of another shows signs of life.

    Raises
    ------
    LockedError
    """
    who = user(outbox_root(store_uri()), run.id)
    host = run.tags.get(HOST, "another machine")
    if not (who or here or host == socket.gethostname() or silent(run)):
        who = f"a process on {host}"
    if who:
        what = f"run {run.id}, which has these very settings, is being written by {who}"
        raise LockedError("E701", what, "wait for its end, or have another run with --resume=no")
