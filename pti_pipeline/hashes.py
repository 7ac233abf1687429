"""Files held against what was written, by their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import file_digest, sha256
from pathlib import Path

from pti_pipeline.errors import ModelError

SHOWN = 12
"""Digits of a hash that an error shows."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, sha256).hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256, in hexadecimal, of every file under ``folder`` by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def both(expected: str, found: str) -> str:
    """Say which hash was expected and which was found, by their first digits.

    Examples
    --------
    >>> both("0123456789abcdef", "fedcba9876543210")
    'expected 0123456789ab, found fedcba987654'
    """
    return f"expected {expected[:SHOWN]}, found {found[:SHOWN]}"


def check_hashes(what: str, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise ``ModelError`` unless files are those that were written, no more and no fewer."""
    for name in sorted({*expected, *found}):
        one, other = str(expected.get(name, "no file")), found.get(name, "no file")
        if one != other:
            what = f"{what}: {name} has changed since it was written ({both(one, other)})"
            raise ModelError("E425", what, "register or train it again")
