"""A folder of pictures of one subject, and what is said of each."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.captions import TABLE, read_captions
from pti_pipeline.folder import find_pictures, read_masks, read_pictures, shown_name
from pti_pipeline.oddities import few, oddities

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
    images : Tensor, shape (N, 3, H, W), float32 in [-1, 1]
        Squares, unless they are :func:`pti_pipeline.views.shaped`.
    captions : tuple of (str or None), length N
        What the user says of each picture.
    names : tuple of str, length N
        File names.
    fingerprint : str
        SHA-256 over the whole pictures and captions, in hexadecimal.
    masks : tuple of (ndarray or None), length N or 0
        Where the subject is, (H, W), bool, of pictures that say so.
    templates : tuple of str
        Prompts, ``{}`` in place of the token, of pictures without a caption.
    shapes : tuple of (int, int), length N or 0
        Widths and heights of the whole pictures.
    """

    images: Tensor
    captions: tuple[str | None, ...]
    names: tuple[str, ...]
    fingerprint: str
    masks: tuple[NDArray[np.bool_] | None, ...] = ()
    templates: tuple[str, ...] = TEMPLATES
    shapes: tuple[tuple[int, int], ...] = ()


def load_subject(folder: Path, size: int) -> Subject:
    """Read every picture of ``folder``, cut to a centered square and resized to ``size``.

    EXIF rotation is applied and transparency laid on white; of an animation the first picture is
    taken. A caption comes from ``<name>.txt`` beside the picture, else from ``metadata.jsonl``
    (``file_name`` and ``text``). A mask comes from ``<name>-mask.png`` beside the picture, else
    from its transparency. What is odd about the pictures is told as warnings.

    Raises
    ------
    DataError
        If there is no picture, or pictures, captions or masks can't be used: all are named.
    """
    paths = find_pictures(folder)
    pictures = read_pictures(paths, size)
    captions, absent = read_captions(folder, paths)
    masks = read_masks(paths, pictures, size)
    pixels = np.stack([picture.pixels for picture in pictures])
    names = tuple(map(shown_name, paths))
    if parent_process() is None:  # what it starts reads the same pictures
        for line in oddities(names, pictures, size):
            warnings.warn(line, stacklevel=2)
        if absent:
            warnings.warn(f"{TABLE} tells of pictures not there: {few(absent)}", stacklevel=2)
    whole = b"".join(picture.digest for picture in pictures)
    digest = sha256(whole + json.dumps(captions).encode()).hexdigest()
    sizes = tuple(picture.shape for picture in pictures)
    return Subject(signed(pixels), captions, names, digest, masks, shapes=sizes)


def signed(pixels: NDArray[np.uint8]) -> Tensor:
    """Pictures (N, H, W, 3), uint8, as a model takes them: (N, 3, H, W), float32 in [-1, 1]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return images.contiguous()


def prompts_for(subject: Subject, token: str) -> list[list[str]]:
    """Prompts of each picture: its caption if it has one, else every template.

    A caption that does not name the token gets it in front.
    """
    plain = [template.replace("{}", token) for template in subject.templates]
    return [
        plain if caption is None else [caption if token in caption else f"{token} {caption}"]
        for caption in subject.captions
    ]


def patterns_of(subject: Subject, token: str) -> tuple[str, ...]:
    """Every prompt of a subject once, ``{}`` in place of the token."""
    prompts = (text for texts in prompts_for(subject, token) for text in texts)
    return tuple(dict.fromkeys(text.replace(token, "{}") for text in prompts))
