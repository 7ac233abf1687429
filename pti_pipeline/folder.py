"""The pictures of a folder and the masks beside them: whatever is wrong is told at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from pti_pipeline.errors import DataError
from pti_pipeline.pictures import (
    SUFFIXES,
    UNREAD,
    Part,
    Picture,
    Size,
    fit_mask,
    opened,
    read_picture,
    reason,
)

MASK = "-mask.png"
"""Ending of the file beside a picture that is white on its subject."""


def shown_name(path: Path) -> str:
    """A picture's file name as text that can be stored: NFC, no bytes outside UTF-8."""
    return normalize("NFC", os.fsencode(path.name).decode(errors="replace"))


def find_pictures(folder: Path) -> list[Path]:
    """Pictures of a folder, in order of name, without the masks that lie beside them.

    Raises
    ------
    DataError
        If there is no folder, or no picture in it.
    """
    hint = "give a folder with 4 to 20 pictures"
    try:
        there = sorted(folder.iterdir())
    except FileNotFoundError:
        raise DataError("E301", f"no folder '{folder}'", hint) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError("E301", f"can't open the folder '{folder}' ({why})", hint) from error
    found = [p for p in there if p.suffix.lower() in SUFFIXES | UNREAD and p.name[0] != "."]
    masks = {p.with_name(p.stem + MASK) for p in found}
    paths = [p for p in found if p not in masks]
    if not paths:
        hint = f"put 4 to 20 pictures in it ({', '.join(sorted(SUFFIXES))})"
        raise DataError("E301", f"no picture in '{folder}'", hint)
    return paths


def read_pictures(
    paths: Sequence[Path], size: Size, parts: Sequence[Part | None] | None = None
) -> list[Picture]:
    """Decode pictures, or a part of each; see :func:`pti_pipeline.pictures.read_picture`.

    Raises
    ------
    DataError
        If some can't be: all of them are named.
    """
    pictures, bad = [], []
    for path, part in zip(paths, parts or [None] * len(paths), strict=True):
        try:
            pictures.append(read_picture(path, size, part))
        except Exception as error:  # Pillow's decoders raise anything on broken files
            bad.append(f"{shown_name(path)} ({reason(path, error)})")
    if bad:
        what = f"can't read {len(bad)} of {len(paths)} pictures: {'; '.join(bad)}"
        raise DataError("E302", what, "replace or remove them")
    return pictures


def read_masks(
    paths: Sequence[Path],
    pictures: Sequence[Picture],
    size: Size,
    parts: Sequence[Part | None] | None = None,
) -> tuple[NDArray[np.bool_] | None, ...]:
    """Masks of pictures, or of a part of each: from files beside them, else from transparency.

    Raises
    ------
    DataError
        If files can't be used: all of them are named.
    """
    masks, bad = [], []
    for path, picture, part in zip(paths, pictures, parts or [None] * len(paths), strict=True):
        mask, beside = picture.mask, path.with_name(path.stem + MASK)
        try:
            if os.path.lexists(beside):
                mask = _mask_beside(beside, picture.shape, size, part)
        except Exception as error:  # as above
            bad.append(f"{shown_name(beside)} ({reason(beside, error)})")
        masks.append(mask)
    if bad:
        what = f"can't use {len(bad)} masks: {'; '.join(bad)}"
        raise DataError("E310", what, "make them as large as their pictures, white on the subject")
    return tuple(masks)


def _mask_beside(
    path: Path, shape: tuple[int, int], size: Size, part: Part | None
) -> NDArray[np.bool_] | None:
    with opened(path) as file:
        drawn = ImageOps.exif_transpose(file).convert("L")
    if drawn.size != shape:
        sides = "{}x{} where its picture is {}x{}"
        raise ValueError(sides.format(*drawn.size, *shape))
    mask = fit_mask(drawn, size, part)
    if part is None and not mask.any():
        raise ValueError("it shows no subject")
    return mask if mask.any() else None
