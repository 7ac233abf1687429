"""A folder of pictures of one subject, and what is said of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pti_pipeline.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SMALLEST = 16
"""Side of the smallest picture taken, in pixels."""

TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "a drawing of {}",
    "an image of {}",
    "{}",
)
"""Prompts for pictures without a caption, after textual inversion (Gal et al. 2022)."""


@dataclass(frozen=True)
class Subject:
    """Pictures of one subject.

    Attributes
    ----------
    images : Tensor, shape (N, 3, S, S), float32 in [-1, 1]
    captions : tuple of (str or None), length N
        What the user says of each picture.
    names : tuple of str, length N
        File names.
    fingerprint : str
        SHA-256 over pixels and captions, in hexadecimal.
    """

    images: Tensor
    captions: tuple[str | None, ...]
    names: tuple[str, ...]
    fingerprint: str


def load_subject(folder: Path, size: int) -> Subject:
    """Read every picture of ``folder``, cut to a centered square and resized to ``size``.

    EXIF rotation is applied and transparency laid on white. A caption comes from ``<name>.txt``
    beside the picture, else from ``metadata.jsonl`` (``file_name`` and ``text``).

    Raises
    ------
    DataError
        If there is no picture, or some can't be read: all of them are named.
    """
    if not folder.is_dir():
        raise DataError("E301", f"no folder '{folder}'", "give a folder with 4 to 20 pictures")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    if not paths:
        hint = f"put 4 to 20 pictures in it ({', '.join(sorted(SUFFIXES))})"
        raise DataError("E301", f"no picture in '{folder}'", hint)
    pictures, bad = [], []
    for path in paths:
        try:
            pictures.append(read_picture(path, size))
        except Exception as error:  # Pillow's decoders raise anything on broken files
            bad.append(f"{path.name} ({error})")
    if bad:
        raise DataError(
            "E302",
            f"can't read {len(bad)} of {len(paths)} pictures: {'; '.join(bad)}",
            "replace or remove them",
        )
    captions = _captions(folder, paths)
    pixels = np.stack(pictures)
    digest = sha256(pixels.tobytes() + json.dumps(captions).encode()).hexdigest()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return Subject(images.contiguous(), captions, tuple(p.name for p in paths), digest)


def read_picture(path: Path, size: int) -> np.ndarray:
    """Decode one picture as (size, size, 3) uint8."""
    with Image.open(path) as file:
        if min(file.size) < SMALLEST:
            raise ValueError(f"{file.width}x{file.height} is below {SMALLEST} pixels")
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith(("I", "F")):  # 16 bits: scale, where convert() would clip
            depth = np.asarray(picture, np.float64)
            top = 255.0 if depth.max() <= 255 else 65535.0
            picture = Image.fromarray((depth / top * 255).round().astype(np.uint8))
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        flat = Image.alpha_composite(paper, picture).convert("RGB")
    return fit(flat, size)


def fit(picture: Image.Image, size: int) -> np.ndarray:
    """Cut a picture to a centered square and resize it to (size, size, 3), uint8."""
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS))


def prompts_for(subject: Subject, token: str) -> list[list[str]]:
    """Prompts of each picture: its caption if it has one, else every template.

    A caption that does not name the token gets it in front.
    """
    plain = [template.format(token) for template in TEMPLATES]
    return [
        plain if caption is None else [caption if token in caption else f"{token} {caption}"]
        for caption in subject.captions
    ]


def _captions(folder: Path, paths: Sequence[Path]) -> tuple[str | None, ...]:
    listed: dict[str, str] = {}
    table = folder / "metadata.jsonl"
    if table.is_file():
        try:
            rows = [json.loads(line) for line in table.read_text("utf-8").splitlines() if line]
            listed = {row["file_name"]: row["text"] for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            hint = 'write lines such as {"file_name": "1.png", "text": "..."}'
            raise DataError("E303", f"can't read '{table}' ({error!r})", hint) from error
    captions = []
    for path in paths:
        beside = path.with_suffix(".txt")
        text = beside.read_text("utf-8") if beside.is_file() else listed.get(path.name)
        captions.append(text.strip() if text and text.strip() else None)
    return tuple(captions)
