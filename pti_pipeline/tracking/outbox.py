"""What a run has to tell the tracking store, kept on disk until the store has it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from pti_pipeline.errors import ResourceError, StoreError
from pti_pipeline.tracking import journal
from pti_pipeline.tracking.journal import Entry
from pti_pipeline.tracking.store import local_folder
from pti_pipeline.values import RUN_ID

LOCK = "lock"
"""File that is locked as long as a process has an outbox."""
OWNER = "owner"
"""File that says in words who has it, or had it last."""


class UnsendableError(Exception):
    """What an entry asks for can't be sent, however often it is tried."""


class Outbox:
    """A folder with a journal of what is to be sent, and the files that it names.

    Attributes
    ----------
    run_id : str
        Of the run that writes it.
    folder : Path
    open : bool
        Until :meth:`close`: then it may be another process's.

    Raises
    ------
    filelock.Timeout
        If another process has it.
    OSError
        If it can't be written.
    StoreError
        If the run's id is none.
    """

    def __init__(self, root: Path, run_id: str) -> None:
        if not RUN_ID.fullmatch(run_id):  # it is a folder's name, and servers say what it is
            what = f"the tracking store gave the run id '{run_id}'"
            raise StoreError("E504", what, "see if it is a store of MLflow's")
        self.run_id, self.folder, self.open = run_id, root / run_id, True
        self._lock = _locked(self.folder)
        self._journal, self._mark = self.folder / "journal.jsonl", self.folder / "sent"
        self._refused = self.folder / "refused.jsonl"
        self._journal.touch()
        journal.mend(self._journal)
        self._sent = min(_number(self._mark), self._journal.stat().st_size)

    def put(self, kind: str, value: Any, to: str = "") -> None:
        """Add something to be sent to a run, its own by default.

        Raises
        ------
        ResourceError
            If the disk is full.
        """
        with self.writing():
            journal.append(self._journal, {"kind": kind, "to": to or self.run_id, "value": value})

    def new_file(self, name: str) -> Path:
        """Return the path of a file to be written, by itself in its folder."""
        folder = self.folder / "files" / uuid4().hex
        folder.mkdir(parents=True)
        return folder / name

    def file(self, name: str) -> Path:
        """Return a file that an entry names, as long as that is one of this folder's.

        Raises
        ------
        UnsendableError
        """
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve() / "files") or not path.exists():
            raise UnsendableError(f"there is no file '{name}' in {self.folder}")
        return path

    def waiting(self) -> Iterator[tuple[Entry, int]]:
        """What is still to be sent, each with the mark that says it was."""
        return _entries(self._journal, self._sent)

    def sent(self, mark: int) -> None:
        """Remember that all was sent up to ``mark``."""
        fresh = self._mark.with_suffix(".new")
        fresh.write_text(str(mark))
        os.replace(fresh, self._mark)
        self._sent = mark

    def sync(self) -> None:
        """Let the disk have all that was put in so far, whatever becomes of the machine."""
        with self.writing(), self._journal.open("rb") as file:
            os.fsync(file.fileno())

    def refuse(self, entry: Entry, reason: str) -> None:
        """Set aside what the store will never take."""
        journal.append(self._refused, {**entry, "reason": reason})

    @property
    def refused(self) -> list[str]:
        """Why the store did not take something; empty if it took all."""
        return [str(entry.get("reason")) for entry, _ in _entries(self._refused)]

    def retry(self) -> None:
        """Let what was refused wait again: the store may have changed its mind."""
        for entry, _ in _entries(self._refused):
            self.put(entry["kind"], entry["value"], entry["to"])
        self._refused.unlink(missing_ok=True)

    def restart(self) -> None:
        """Forget what was sent: a run that goes on has not ended."""
        self._journal.write_bytes(b"")
        self.sent(0)

    @property
    def ends(self) -> bool:
        """Whether its run was ended by the process that wrote it."""
        return any(entry["kind"] == "end" for entry, _ in _entries(self._journal))

    def close(self) -> None:
        """Let it go; what was sent to its end, and was not refused, is removed."""
        if not self.open:
            return
        self.open = False
        done = next(self.waiting(), None) is None and not self.refused
        if done:  # before others may have it
            _remove(self.folder)
        self._lock.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tell in one line that the disk does not take it."""
        try:
            yield
        except OSError as error:
            what = f"what is logged can't be kept in {self.folder} ({error})"
            raise ResourceError("E605", what, "free some space there") from error


def outbox_root(uri: str) -> Path:
    """Folder of a store's outboxes."""
    return local_folder(uri, "outbox")


def left_ones(root: Path) -> list[str]:
    """Run ids that have outboxes, be they in use or left by processes that died."""
    found = [path.parent.name for path in sorted(root.glob("*/journal.jsonl"))]
    return [name for name in found if RUN_ID.fullmatch(name)]


def tidy(root: Path) -> None:
    """Remove what is left of outboxes that were emptied by processes that died right then."""
    for folder in root.glob("*"):
        if not (folder / "journal.jsonl").exists():
            with suppress(OSError), FileLock(folder / LOCK, timeout=0):
                _remove(folder)


def take(root: Path, run_id: str) -> Outbox | None:
    """Take an outbox that was left; None if there is none, or it is in use."""
    if not (root / run_id / "journal.jsonl").is_file():
        return None
    try:
        return Outbox(root, run_id)
    except OSError:  # or a Timeout, which is one
        return None


def _locked(folder: Path) -> FileLock:
    """Make an outbox's folder, and be the one who has it."""
    lock = FileLock(folder / LOCK, timeout=0.8, thread_local=False)  # others may look who has it
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            who = f"process {os.getpid()} on {socket.gethostname()}"
            (folder / OWNER).write_text(who, "utf-8")
            return lock
        except FileNotFoundError:  # it was removed right then, as what others had left
            lock.release()


def _remove(folder: Path) -> None:
    """Remove an outbox that one has; first its journal: without that it is nothing to be sent."""
    (folder / "journal.jsonl").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _entries(path: Path, start: int = 0) -> Iterator[tuple[Entry, int]]:
    """Read the entries of a journal that say what is to be sent where; others are passed over."""
    for entry, end in journal.read(path, start):
        texts = isinstance(entry.get("kind"), str) and isinstance(entry.get("to"), str)
        if texts and "value" in entry:
            yield entry, end


def _number(path: Path) -> int:
    """Read a mark; what can't be read is 0, as sending again does no harm."""
    try:
        return max(0, int(path.read_text()))
    except (OSError, ValueError):
        return 0
