"""What a run has to tell the tracking store, kept on disk until the store has it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from pti_pipeline.tracking import journal
from pti_pipeline.tracking.journal import Entry


class Outbox:
    """A folder with a journal of what is to be sent, and the files that it names.

    Attributes
    ----------
    run_id : str
        Of the run that writes it.
    folder : Path

    Raises
    ------
    filelock.Timeout
        If another process has it.
    """

    def __init__(self, root: Path, run_id: str) -> None:
        self.run_id, self.folder = run_id, root / run_id
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock", timeout=0)
        self._lock.acquire()
        self._journal, self._mark = self.folder / "journal.jsonl", self.folder / "sent"
        journal.mend(self._journal)
        self._sent = int(self._mark.read_text()) if self._mark.is_file() else 0

    def put(self, kind: str, value: Any, to: str = "") -> None:
        """Add something to be sent to a run, its own by default."""
        journal.append(self._journal, {"kind": kind, "to": to or self.run_id, "value": value})

    def new_file(self, name: str) -> Path:
        """Return the path of a file to be written, by itself in its folder."""
        folder = self.folder / "files" / uuid4().hex
        folder.mkdir(parents=True)
        return folder / name

    def waiting(self) -> Iterator[tuple[Entry, int]]:
        """What is still to be sent, each with the mark that says it was."""
        return journal.read(self._journal, self._sent)

    def sent(self, mark: int) -> None:
        """Remember that all was sent up to ``mark``."""
        fresh = self._mark.with_suffix(".new")
        fresh.write_text(str(mark))
        os.replace(fresh, self._mark)
        self._sent = mark

    def refuse(self, entry: Entry, reason: str) -> None:
        """Set aside what the store will never take."""
        journal.append(self.folder / "refused.jsonl", {**entry, "reason": reason})

    @property
    def refused(self) -> list[str]:
        """Why the store did not take something; empty if it took all."""
        return [entry["reason"] for entry, _ in journal.read(self.folder / "refused.jsonl")]

    @property
    def ends(self) -> bool:
        """Whether its run was ended by the process that wrote it."""
        return any(entry["kind"] == "end" for entry, _ in journal.read(self._journal))

    def close(self) -> None:
        """Let it go; what was sent to its end, and was not refused, is removed."""
        done = next(self.waiting(), None) is None and not self.refused
        self._lock.release()
        if done:
            shutil.rmtree(self.folder, ignore_errors=True)


def outbox_root(uri: str) -> Path:
    """Folder of a store's outboxes: beside a SQLite database, else in the home folder."""
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        return database.parent / ".pti" / "outbox" / database.name
    return Path.home() / ".pti" / "outbox" / re.sub(r"[^\w.-]+", "-", uri)


def left_outboxes(root: Path) -> Iterator[Outbox]:
    """Outboxes whose process is gone, one at a time; those in use are passed over."""
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            yield Outbox(root, folder.name)
        except Timeout:
            continue
