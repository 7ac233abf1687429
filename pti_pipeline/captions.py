"""What the user says of each picture of a folder: files beside them, or a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from unicodedata import normalize

from pti_pipeline.errors import DataError

TABLE = "metadata.jsonl"
LONGEST = 1000
"""Letters of a caption; text encoders read about 300."""
LARGEST = 10_000_000
"""Bytes of a file of captions."""


def read_captions(
    folder: Path, paths: Sequence[Path]
) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """Read the captions of pictures: ``<name>.txt`` beside each, else its row of the table.

    Parameters
    ----------
    folder : Path
        Where ``metadata.jsonl`` may be.
    paths : sequence of Path
        Of the pictures.

    Returns
    -------
    tuple of (str or None), tuple of str
        One a picture, in one line; and the names of pictures in the table that are not there.

    Raises
    ------
    DataError
        If captions can't be read or used; all of them are named.
    """
    listed = _table(folder / TABLE)
    captions, bad = [], []
    for path in paths:
        beside = path.with_suffix(".txt")
        try:
            if beside.is_file():
                caption = _caption(_text(beside))
            else:
                caption = _caption(listed.get(normalize("NFC", path.name), ""))
        except (OSError, ValueError) as error:
            bad.append(f"{beside.name if beside.is_file() else path.name} ({error})")
        else:
            captions.append(caption)
    if bad:
        hint = f"write UTF-8 text of at most {LONGEST} letters"
        raise DataError("E320", f"can't use {len(bad)} captions: {'; '.join(bad)}", hint)
    there = {normalize("NFC", path.name) for path in paths}
    return tuple(captions), tuple(name for name in listed if name not in there)


def read_prompts(path: Path, what: str) -> tuple[str, ...]:
    """Read prompts: one a line, ``{}`` where the token goes.

    Parameters
    ----------
    path : Path
    what : str
        The option that names the file, for messages.

    Raises
    ------
    DataError
        If the file can't be read or holds none, or lines can't be used; all of them are named.
    """
    hint = f"write one prompt a line, of at most {LONGEST} letters, with {{}} for the token"
    prompts, bad = [], []
    try:
        lines = _text(path).split("\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError("E321", f"can't read the {what} '{path}' ({why})", hint) from error
    for number, line in enumerate(lines, 1):
        try:
            if text := _caption(line):
                prompts.append(_with_place(text))
        except ValueError as error:
            bad.append(f"line {number} ({error})")
    if bad or not prompts:
        why = f"can't use {len(bad)} lines: {'; '.join(bad)}" if bad else "no prompts"
        raise DataError("E321", f"{what} '{path}': {why}", hint)
    return tuple(dict.fromkeys(prompts))


def _with_place(text: str) -> str:
    if "{}" not in text:
        raise ValueError("no {}")
    return text


def _table(path: Path) -> dict[str, str]:
    """Captions of ``metadata.jsonl`` by file name; none without the file."""
    listed: dict[str, str] = {}
    if not path.is_file():
        return listed
    try:
        for line in filter(str.strip, _text(path).split("\n")):
            name, text = _row(line)
            if name in listed:
                raise ValueError(f"'{name}' is there twice")
            listed[name] = text
    except (OSError, ValueError, RecursionError) as error:
        what = f"can't read '{path}', whose row {len(listed) + 1} is wrong ({error})"
        hint = 'write lines such as {"file_name": "1.png", "text": "..."}'
        raise DataError("E303", what, hint) from error
    return listed


def _row(line: str) -> tuple[str, str]:
    """File name and caption of one line."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    for key in ("file_name", "text"):
        if not isinstance(row.get(key), str):
            raise ValueError(f"no text under '{key}'")
    name = normalize("NFC", row["file_name"])
    if PureWindowsPath(name).name != name:
        raise ValueError(f"'{name}' is no file's name in this folder")
    return name, row["text"]


def _text(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"above {LARGEST / 1e6:.0f} MB")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("no UTF-8 text") from None


def _caption(text: str) -> str | None:
    """One line of text; None if there is none."""
    caption = " ".join(text.split())
    if len(caption) > LONGEST:
        raise ValueError(f"{len(caption)} letters")
    if any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in caption):
        raise ValueError("control characters")
    return caption or None
