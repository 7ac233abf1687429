"""An append-only file of entries with checksums, which outlives the process that writes it.

A line is the CRC-32 of its text as eight hexadecimal digits, a space, and the entry as JSON.
"""

from __future__ import annotations

import json
import os
from binascii import crc32
from collections.abc import Iterator, Mapping
from errno import ENOSPC
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]


def append(path: Path, entry: Entry) -> None:
    """Add an entry, in one write: who reads meanwhile sees all of it or none.

    Raises
    ------
    OSError
        If the disk is full; the file is then as it was.
    """
    text = json.dumps(entry).encode()
    line = b"%08x %s\n" % (crc32(text), text)
    with path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))
        except OSError:
            file.truncate(start)  # the next line would continue this one
            raise


def read(path: Path, start: int = 0) -> Iterator[tuple[Entry, int]]:
    """Read entries from a place in the file.

    Parameters
    ----------
    path : Path
        There are no entries in a file that isn't there.
    start : int
        In bytes: 0, or an end that was given here.

    Yields
    ------
    mapping, int
        An entry, and the place where it ends. A spoiled line is passed over; a last one without
        its end is still being written, or was when the process died.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            start += len(line)
            if not line.endswith(b"\n"):
                return
            if (entry := _entry(line)) is not None:
                yield entry, start


def mend(path: Path) -> None:
    """Cut off a last line that was not written to its end: the next would continue it."""
    if path.is_file():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)


def _entry(line: bytes) -> Entry | None:
    code, _, text = line[:-1].partition(b" ")
    if code != b"%08x" % crc32(text):
        return None
    try:
        entry: Entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
