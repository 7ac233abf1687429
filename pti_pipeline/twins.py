"""Counterfactual twins: the training pictures with another position, pose or environment.

What a model gained on a picture it would have gained on its twin too, if it had learnt the
character alone. In the embedded world twins are rendered from the pictures' factors. Of photos they
are made by moving, turning and cutting, which is weaker: a shift moves the environment too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pti_pipeline.data import Subject
from pti_pipeline.pictures import fit
from pti_pipeline.randomness import generator
from pti_pipeline.world.record import FILE, read_factors
from pti_pipeline.world.render import masks as masks_of
from pti_pipeline.world.render import render
from pti_pipeline.world.subjects import TWINS, twins

Pictures = dict[str, Tensor]
"""By kind, each (N, 3, S, S) in [-1, 1]: twin i is of training picture i."""

ALL = "all"
"""The kind of twins in which position, pose and environment are others."""

SHIFT = 0.25
"""Largest shift of a photo, as a share of its side."""
SMALLEST_CUT = 0.6
"""Smallest part of a photo's side that a cut leaves."""


@dataclass(frozen=True)
class Twins:
    """One twin of each kind for every training picture.

    Attributes
    ----------
    pictures : dict of str to Tensor, each of shape (N, 3, S, S), float32 in [-1, 1]
        ``all``, ``position``, ``pose`` and, of renders, ``scene``.
    masks : Tensor or None, shape (N, 1, S, S), float32 in [0, 1]
        Where the character is on the twins ``all``; None if that is unknown.
    """

    pictures: Pictures
    masks: Tensor | None


def ingredients(subject: Subject, images: Path) -> str:
    """Digest of what twins are made from beside the pictures: masks, and what was rendered."""
    digest = sha256("\n".join(subject.names).encode())
    for mask in subject.masks:
        digest.update(b"-" if mask is None else np.packbits(mask).tobytes())
    record = images / FILE
    digest.update(record.read_bytes() if record.is_file() else b"-")
    return digest.hexdigest()


def make_twins(subject: Subject, images: Path) -> Twins:
    """Make twins of a subject's pictures.

    Parameters
    ----------
    subject : Subject
    images : Path
        Its folder; ``factors.json`` in it says what was rendered.
    """
    factors = read_factors(images, subject.names)
    if factors is None:
        known = [torch.from_numpy(m)[None].float() for m in subject.masks if m is not None]
        whole = len(known) == len(subject.images)
        masks = photo_twins(torch.stack(known))[ALL] if whole else None
        return Twins(photo_twins(subject.images), masks)
    with Image.open(images / subject.names[0]) as file:
        drawn, side = file.width, subject.images.shape[-1]
    kinds = {ALL: tuple(TWINS)} | {kind: (kind,) for kind in TWINS}
    factors_of = {kind: twins(factors, 0, *names) for kind, names in kinds.items()}
    pictures = {kind: _signed(render(each, drawn), side) for kind, each in factors_of.items()}
    covered = np.uint8(255) * masks_of(factors_of[ALL], drawn)
    fitted = np.stack([fit(Image.fromarray(mask), side) for mask in covered])
    return Twins(pictures, torch.from_numpy(fitted)[:, None].float().div(255))


def photo_twins(images: Tensor) -> Pictures:
    """Make twins of photos (N, C, S, S): shifted, mirrored, and both of these cut to a part."""
    cut = _each(images, "cut", _cut)
    return {
        ALL: _each(cut.flip(-1), "all", _shift),
        "position": _each(images, "position", _shift),
        "pose": images.flip(-1),
    }


def _each(images: Tensor, stream: str, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    draws = [
        torch.rand(3, generator=generator(0, f"twins/{stream}", i)) for i in range(len(images))
    ]
    return torch.stack([change(image, u) for image, u in zip(images, draws, strict=True)])


def _shift(image: Tensor, draw: Tensor) -> Tensor:
    """Move a picture (3, S, S) by up to :data:`SHIFT`, at least half of it; edges are repeated."""
    side = image.shape[-1]
    turn = draw[0] * 2 * torch.pi
    reach = side * SHIFT * (0.5 + 0.5 * draw[1])
    down, right = int(reach * turn.sin()), int(reach * turn.cos())
    rows = (torch.arange(side) - down).clamp(0, side - 1)
    columns = (torch.arange(side) - right).clamp(0, side - 1)
    return image[:, rows][:, :, columns]


def _cut(image: Tensor, draw: Tensor) -> Tensor:
    """Enlarge a part of a picture (3, S, S)."""
    side = image.shape[-1]
    part = int(side * (SMALLEST_CUT + (1 - SMALLEST_CUT) * float(draw[0])))
    top, left = (int(float(u) * (side - part)) for u in draw[1:])
    window = image[None, :, top : top + part, left : left + part]
    return torch.nn.functional.interpolate(window, side, mode="bilinear", antialias=True)[0]


def _signed(pictures: NDArray[np.uint8], side: int) -> Tensor:
    pixels = torch.from_numpy(np.stack([fit(Image.fromarray(p), side) for p in pictures]))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
