"""Of processes that begin with the same settings at one moment, one is let in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pti_pipeline.errors import LockedError
from pti_pipeline.tracking.store import local_folder, store_uri

_begun: dict[Path, FileLock] = {}
"""Locks of attempts of this process whose runs are not open yet, by their files."""


def begin_alone(key: str) -> None:
    """Be the only process here that looks for runs with some settings, until they are open.

    Parameters
    ----------
    key : str
        Fingerprint of the settings.

    Raises
    ------
    LockedError
        If another process is at it.
    """
    if (path := _lock_of(key)) in _begun:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0.5, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        what = "another process begins with these very settings at this moment"
        raise LockedError("E701", what, "wait for its end") from None
    _begun[path] = lock


def release(key: str) -> None:
    """Let others look for runs with some settings."""
    path = _lock_of(key)
    if lock := _begun.pop(path, None):
        path.unlink(missing_ok=True)
        lock.release()


def tidy() -> None:
    """Remove locks that nobody has: their processes died."""
    for path in set(_folder().glob("*.lock")) - set(_begun):
        lock = FileLock(path, timeout=0)
        with suppress(Timeout), lock:  # else somebody begins
            path.unlink(missing_ok=True)


def _lock_of(key: str) -> Path:
    return _folder() / f"{key}.lock"


def _folder() -> Path:
    return local_folder(store_uri(), "attempts")
