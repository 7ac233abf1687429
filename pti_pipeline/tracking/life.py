"""Signs of life of the processes that write runs."""

from __future__ import annotations

import socket
import time

from pti_pipeline.errors import LockedError
from pti_pipeline.tracking.find import Found
from pti_pipeline.tracking.outbox import outbox_root, place_id, user
from pti_pipeline.tracking.store import store_uri

HEARTBEAT = "pti.heartbeat"
"""Tag of a run: when its process showed last that it lives, in whole seconds since 1970."""
HOST = "pti.host"
"""Tag of a run: name of the machine that writes it."""
PLACE = "pti.place"
"""Tag of a run: where its outbox is, see :func:`pti_pipeline.tracking.outbox.place_id`."""
DEAD = 300
"""Seconds without a sign of life after which a run's process counts as dead."""


def heartbeat() -> dict[str, str]:
    """Tag that says that the process of a run lives now."""
    return {HEARTBEAT: str(int(time.time()))}


def birth() -> dict[str, str]:
    """Tags of a run that begins now, or goes on, written from here."""
    place = place_id(store_uri())
    return {HOST: socket.gethostname(), PLACE: place, **heartbeat()}


def is_ours(run: Found) -> bool:
    """Whether a run was last written from here."""
    return run.tags.get(PLACE) == place_id(store_uri())


def silent(run: Found) -> bool:
    """Whether a run's process has shown no sign of life for :data:`DEAD` seconds."""
    beat = run.tags.get(HEARTBEAT, "")
    return beat.isdigit() and time.time() - int(beat) > DEAD


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
