"""A folder of pictures of one subject, and what is said of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from pti_pipeline.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
MASK = "-mask.png"
"""Ending of the file beside a picture that is white on its subject."""
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
    masks : tuple of (ndarray or None), length N or 0
        Where the subject is, (S, S), bool, of pictures that say so.
    """

    images: Tensor
    captions: tuple[str | None, ...]
    names: tuple[str, ...]
    fingerprint: str
    masks: tuple[NDArray[np.bool_] | None, ...] = ()


def load_subject(folder: Path, size: int) -> Subject:
    """Read every picture of ``folder``, cut to a centered square and resized to ``size``.

    EXIF rotation is applied and transparency laid on white. A caption comes from ``<name>.txt``
    beside the picture, else from ``metadata.jsonl`` (``file_name`` and ``text``). A mask comes from
    ``<name>-mask.png`` beside the picture, else from its transparency.

    Raises
    ------
    DataError
        If there is no picture, or some can't be read (all of them are named), or a mask is empty
        or of another size than its picture.
    """
    if not folder.is_dir():
        raise DataError("E301", f"no folder '{folder}'", "give a folder with 4 to 20 pictures")
    paths = _pictures(folder)
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
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    names, masks = tuple(p.name for p in paths), tuple(_mask(p, size) for p in paths)
    digest = sha256(pixels.tobytes() + json.dumps(captions).encode()).hexdigest()
    return Subject(images.contiguous(), captions, names, digest, masks)


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


def patterns_of(subject: Subject, token: str) -> tuple[str, ...]:
    """Every prompt of a subject once, ``{}`` in place of the token."""
    prompts = (text for texts in prompts_for(subject, token) for text in texts)
    return tuple(dict.fromkeys(text.replace(token, "{}") for text in prompts))


def _pictures(folder: Path) -> list[Path]:
    """Pictures of a folder, in order of name, without the masks that lie beside them."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    masks = {p.with_name(p.stem + MASK) for p in found}
    return sorted(p for p in found if p not in masks)


def _mask(path: Path, size: int) -> NDArray[np.bool_] | None:
    """Mask of one picture, cut and resized as the picture is; None if nothing tells."""
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    beside = path.with_name(path.stem + MASK)
    shape = _mask_beside(beside, picture.size) if beside.is_file() else alpha
    if shape is None:
        return None
    mask: NDArray[np.bool_] = (
        np.asarray(ImageOps.fit(shape, (size, size), Image.Resampling.BOX)) > 127
    )
    if shape is alpha and (mask.all() or not mask.any()):
        return None  # transparency that sets nothing apart
    if not mask.any():
        what = f"the mask '{beside.name}' shows no subject"
        raise DataError("E310", what, "paint it white on the subject")
    return mask


def _mask_beside(path: Path, size: tuple[int, int]) -> Image.Image:
    hint = f"make it {size[0]}x{size[1]}, white on the subject"
    try:
        with Image.open(path) as file:
            shape = ImageOps.exif_transpose(file).convert("L")
    except Exception as error:  # Pillow's decoders raise anything on broken files
        raise DataError("E310", f"can't read the mask '{path.name}' ({error})", hint) from error
    if shape.size != size:
        what = f"the mask '{path.name}' is {shape.width}x{shape.height}"
        raise DataError("E310", what, hint)
    return shape


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
