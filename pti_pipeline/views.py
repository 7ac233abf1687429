"""What a training sees of a subject: other views of its pictures, and which parts count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.aspect import nearest, shapes
from pti_pipeline.data import Subject, signed
from pti_pipeline.errors import DataError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.folder import MASK, find_pictures, read_masks, read_pictures
from pti_pipeline.objective import Objective
from pti_pipeline.pictures import Part, Size
from pti_pipeline.randomness import generator

SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def mirrored(subject: Subject, token: str) -> Subject:
    """Mirror a subject's pictures and masks, and swap left and right in its prompts.

    Nothing in ``token``, its name, is swapped.
    """
    swapped = [None if text is None else _swapped(text, token) for text in subject.captions]
    return replace(
        subject,
        images=subject.images.flip(-1),
        captions=tuple(swapped),
        masks=tuple(None if mask is None else mask[:, ::-1].copy() for mask in subject.masks),
        templates=tuple(_swapped(text, token) for text in subject.templates),
    )


def _swapped(text: str, token: str) -> str:
    return token.join(SIDES.sub(_other_side, part) for part in text.split(token))


def _other_side(found: re.Match[str]) -> str:
    word = found[0]
    other = "right" if word.lower() == "left" else "left"
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


def in_shapes(
    base: BaseModel, subject: Subject, folder: Path, objective: Objective
) -> list[tuple[Subject, list[int]]]:
    """Cut a subject's pictures to the shapes in which an objective sees them.

    Returns
    -------
    list of (Subject, list of int)
        Those of each shape, and their places among all; the shape of most comes first.
    """
    if objective.buckets == "no":
        return [(subject, [*range(len(subject.images))])]
    known = shapes(base.resolution, base.multiple, base.longest)
    found = by_shape(subject, known).items()
    return [(shaped(subject, folder, shape, places), places) for shape, places in found]


def by_shape(subject: Subject, known: list[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Places of a subject's pictures, by the nearest of some shapes; that of most comes first."""
    found: dict[tuple[int, int], list[int]] = {}
    for place, shape in enumerate(subject.shapes):
        found.setdefault(nearest(shape, known), []).append(place)
    return dict(sorted(found.items(), key=lambda each: -len(each[1])))


def shaped(subject: Subject, folder: Path, shape: tuple[int, int], places: list[int]) -> Subject:
    """Some pictures of a subject, read again and cut to another width and height."""
    captions = tuple(subject.captions[i] for i in places)
    names = tuple(subject.names[i] for i in places)
    shapes = tuple(subject.shapes[i] for i in places)
    some = replace(subject, captions=captions, names=names, shapes=shapes)
    return _read(some, [find_pictures(folder)[i] for i in places], shape)


def crops(subject: Subject, folder: Path, count: int, places: Sequence[int]) -> list[Subject]:
    """Other parts of a subject's pictures, ``count`` with the centered ones that it has.

    Each is 0.8 to 1 of the largest part of its shape and lies anywhere in the picture, with its
    mask; one that shows nothing of the subject has none. They depend on the picture's place in the
    folder alone, so that all experiments see the same.

    Parameters
    ----------
    subject : Subject
    folder : Path
        Its pictures'.
    count : int
    places : sequence of int
        Of its pictures in the folder.

    Raises
    ------
    DataError
        If pictures can't be read any more.
    """
    if count == 1:
        return []
    paths, (height, width) = find_pictures(folder), subject.images.shape[-2:]
    own = [paths[i] for i in places]
    return [
        _read(subject, own, (width, height), [_part(number, i) for i in places])
        for number in range(1, count)
    ]


def _part(number: int, place: int) -> Part:
    """Draw crop ``number`` of the picture at a place in the folder."""
    size, right, down = torch.rand(3, generator=generator(0, f"crop/{number}", place)).tolist()
    return size, right, down


def _read(
    subject: Subject, paths: Sequence[Path], size: Size, parts: Sequence[Part] | None = None
) -> Subject:
    """Read a subject's pictures and masks again, or parts of them, at some size."""
    pictures = read_pictures(paths, size, parts)
    masks = read_masks(paths, pictures, size, parts)
    images = signed(np.stack([picture.pixels for picture in pictures]))
    return replace(subject, images=images, masks=masks)


def check(subject: Subject, objective: Objective) -> None:
    """Raise ``DataError`` if the objective asks for masks where there are none."""
    if objective.background < 1 and all(mask is None for mask in subject.masks):
        what = f"background is {objective.background:g}, but no picture has a mask"
        hint = f"put <name>{MASK} beside pictures, white on the subject, or cut the subject out"
        raise DataError("E311", what, hint)


def area_weights(
    masks: Sequence[NDArray[np.bool_] | None], shape: Sequence[int], background: float
) -> Tensor:
    """Weights of the loss at each place of the latents.

    Parameters
    ----------
    masks : sequence of (ndarray or None), length N
        Where the subject is, (S, S); a picture without one counts whole.
    shape : sequence of int
        Rows and columns of the latents; a mask is averaged over what each stands for.
    background : float
        Weight outside the mask, beside 1 within.

    Returns
    -------
    Tensor, shape (N, 1, h, w), float32
        Of mean 1 for each picture, so that losses, and learning rates, stay comparable.
    """
    parts = [
        torch.ones(1, 1, *shape)
        if mask is None
        else F.interpolate(torch.from_numpy(mask)[None, None].float(), shape, mode="area")
        for mask in masks
    ]
    weights = background + (1 - background) * torch.cat(parts)
    return weights / weights.mean((-2, -1), keepdim=True)
