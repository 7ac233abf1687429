"""Who reads pictures on a base: the world's factor reader, masks, CLIP and DINO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pti_pipeline import layout
from pti_pipeline.characters import class_word
from pti_pipeline.data import Subject
from pti_pipeline.families import WORLD
from pti_pipeline.families.base import BaseModel
from pti_pipeline.features import (
    Vision,
    load_clip,
    load_dino,
    load_world_clip,
    subject_features,
    text_similarities,
)
from pti_pipeline.masks import Masks, attention_masks, palette_masks
from pti_pipeline.sampling import to_uint8
from pti_pipeline.world.reader import Reader, load_reader


@dataclass(frozen=True)
class Readers:
    """What reads pictures.

    Attributes
    ----------
    base : BaseModel
    word : str
        Class word: what masks are read by on bases other than the world.
    factors : Reader or None
        Of the embedded world alone.
    clip, dino : Vision or None
        As given by the user; the world has a CLIP model of its own.
    """

    base: BaseModel
    word: str
    factors: Reader | None
    clip: Vision | None
    dino: Vision | None


def load_readers(base: BaseModel, word: str, clip: str = "", dino: str = "") -> Readers:
    """Load what can read pictures of ``base``.

    Parameters
    ----------
    base : BaseModel
    word : str
        Class word.
    clip, dino : str
        A folder or a hub id; none by default.

    Raises
    ------
    ModelError
        If a model that was given can't be opened.
    """
    world = base.name == "world"
    seeing = load_clip(clip, base.device) if clip else None
    if world and not clip:
        seeing = load_world_clip(WORLD, base.device)
    return Readers(
        base,
        word,
        load_reader() if world else None,
        seeing,
        load_dino(dino, base.device) if dino else None,
    )


def read_subject(readers: Readers, subject: Subject) -> tuple[dict[str, Tensor], Masks]:
    """Read the training pictures; masks that came with them go before those found here.

    Returns
    -------
    dict of str to Tensor
        As of :func:`read_plain`.
    ndarray, shape (N, S, S), bool
    """
    masks = find_masks(readers, subject.images)
    for i, given in enumerate(subject.masks):
        if given is not None:
            masks[i] = given
    return _read(readers, subject.images, masks), masks


def read_plain(readers: Readers, images: Tensor) -> dict[str, Tensor]:
    """Read samples (n, 3, S, S) of a prompt that says nothing of place or scene.

    Returns
    -------
    dict of str to Tensor, each with n rows
        In the world its factors; elsewhere ``layout`` and ``background``. With models for them,
        ``clip`` and ``dino`` features of the masked subject. Rows without a mask are NaN.
    """
    return _read(readers, images, find_masks(readers, images))


def read_edits(readers: Readers, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Read samples of edit prompts: factors, and their likeness to texts.

    ``clip_t`` is that to what was asked, ``clip_t_other`` the mean one to the other edit prompts.
    The placeholder is taken out of prompts (Gal et al. 2022), so that only the edit counts.
    """
    images = images.cpu()
    read = readers.factors.read(images) if readers.factors else {}
    if readers.clip:
        asked = [" ".join(text.replace("{}", "").split()) for text in prompts]
        texts = list(dict.fromkeys(asked))
        likeness = text_similarities(readers.clip, images, texts)
        own = likeness.gather(1, torch.tensor([[texts.index(text)] for text in asked]))[:, 0]
        read["clip_t"] = own
        read["clip_t_other"] = (likeness.sum(1) - own) / (len(texts) - 1)
    return read


def find_masks(readers: Readers, images: Tensor) -> Masks:
    """Masks (n, S, S) of the subject: by palette in the world, else by the class word's attention.

    The class word on the bare base reads every picture, whoever drew it: what a trained token
    attends to has changed itself, and that would count as a change of layout.
    """
    if readers.factors:
        return palette_masks(images)
    return attention_masks(readers.base, class_word(readers.word), images)


def reader_names(readers: Readers, subject: Subject) -> dict[str, str]:
    """Say who reads each group of metrics, by tag."""
    given = sum(mask is not None for mask in subject.masks)
    found = "palette masks" if readers.factors else f"cross-attention masks of '{readers.word}'"
    masks = f"{found}, {given} of {len(subject.images)} given" if given else found
    factors = ["world factor reader"] if readers.factors else []
    clip = [f"CLIP {readers.clip.name}"] if readers.clip else []
    dino = [f"DINO {readers.dino.name}"] if readers.dino else []
    groups = {
        "reconstruction": ["fixed bank", *factors, masks, *clip, *dino],
        "editability": [*factors, *clip],
        "leak": factors or [masks],
        "diversity": factors or [masks],
        "overpowering": ["cross-attention"],
    }
    return {f"pti.reader.{group}": "; ".join(who) for group, who in groups.items() if who}


def _read(readers: Readers, images: Tensor, masks: Masks) -> dict[str, Tensor]:
    images, shapes = images.cpu(), torch.from_numpy(masks)
    if readers.factors:
        read = readers.factors.read(images)
    else:
        pictures = to_uint8(images) / 255
        around = [layout.background(p, m) for p, m in zip(pictures, masks, strict=True)]
        read = {
            "layout": torch.from_numpy(np.stack([layout.features(m) for m in masks])),
            "background": torch.from_numpy(np.stack(around)),
        }
    for name, vision in (("clip", readers.clip), ("dino", readers.dino)):
        if vision:
            read[name] = subject_features(vision, images, shapes.to(vision.mean.device))
    return read
