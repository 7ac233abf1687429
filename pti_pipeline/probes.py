"""Probes: what a training did to the model's answers, on fixed rows and without sampling.

Two questions in one pass. How far are the answers from the base model's (the distance between
functions)? And what was gained on the training pictures beyond their counterfactual twins?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pti_pipeline.characters import PLAIN, class_word, draw
from pti_pipeline.data import Subject
from pti_pipeline.families.base import BaseModel
from pti_pipeline.losses import denoising_loss, masked_loss
from pti_pipeline.memory import in_parts
from pti_pipeline.pivot import attached, placeholder_tokens
from pti_pipeline.randomness import generator
from pti_pipeline.settings import SampleSettings
from pti_pipeline.twins import ALL, Twins

OWN = ("{} on the beach", "a painting of {}")
"""Held-out prompts, for the token and for the class word."""
OTHERS = ("a robot in the city", "a bear in the snow", "a cat in the forest")
"""Held-out prompts of other subjects; two that do not name the class word are used."""
FAMILIES = ("pivot", "class", "other")
"""What prompts name: the token, the class word, or another subject."""
QUARTERS = (1 / 8, 3 / 8, 5 / 8, 7 / 8)
"""Noise on training pictures and twins: the middles of the schedule's quarters."""
TERCILES = {"low_noise": 1 / 6, "mid_noise": 1 / 2, "high_noise": 5 / 6}
"""Noise at which functions are compared: the middles of the schedule's thirds."""


@dataclass(frozen=True)
class Rows:
    """Fixed noised latents, each with its prompt: G groups of n pictures at T noise levels.

    Attributes
    ----------
    groups : tuple of str, length G
    levels : int
        T. Rows are laid out (G, T, n).
    noisy, target : Tensor, shape (G T n, C, h, w)
        What the denoiser is given, and what it should say.
    timesteps, prompts : Tensor, shape (G T n,), int64
    """

    groups: tuple[str, ...]
    levels: int
    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    prompts: Tensor


@dataclass(frozen=True)
class Probe:
    """Rows to be asked, and the token ids (P, L) of their prompts.

    ``own`` ids hold the placeholder, ``plain`` ones the class word in its place. ``masks``, of
    shape (N, 1, h, w) in [0, 1], say where the character is on the twins ``all``, if it is known.
    """

    twins: Rows
    masks: Tensor | None
    function: Rows
    own: Tensor
    plain: Tensor


@dataclass(frozen=True)
class Reading:
    """A model's answers to a probe.

    Attributes
    ----------
    losses : dict of str to Tensor, each of shape (N,), float64
        Of each training picture (``train``) and of its twins by kind, averaged over the noise;
        ``subject`` is that of the twins ``all`` on the character's own latents.
    answers : Tensor, shape (F, T, n, C, h, w)
        To prompts of F families.
    """

    losses: dict[str, Tensor]
    answers: Tensor


def build_probe(
    base: BaseModel,
    subject: Subject,
    twins: Twins,
    token: str,
    vectors: int,
    initializer: str,
    families: Sequence[str] = FAMILIES,
) -> Probe:
    """Fix the noise and the prompts; latents of the prompts' rows are drawn by the base model.

    A picture and its twins have the same noise, so that their losses differ by what they show.

    Parameters
    ----------
    base : BaseModel
        With nothing attached to it.
    subject : Subject
    twins : Twins
    token, vectors, initializer
        Placeholder token, its number of vectors, and the class word.
    families : sequence of str
        Of :data:`FAMILIES`; an inversion changes the answers to prompts of the first alone.
    """
    pictures = {"train": subject.images, **twins.pictures}
    latents = {kind: base.encode_images(images)[0] for kind, images in pictures.items()}
    plain = {kind: [0] * len(subject.images) for kind in pictures}
    seeds = range(len(OWN))
    drawn = draw(base, class_word(initializer), [PLAIN] * len(OWN), seeds, SampleSettings())[0]
    held_out = base.encode_images(drawn)[0]
    prompts = {name: [1 + FAMILIES.index(name) * len(OWN) + i for i in seeds] for name in families}
    others = [text for text in OTHERS if initializer not in text.split()][: len(OWN)]
    named = [text.replace("{}", initializer) for text in (PLAIN, *OWN)]
    tokens = placeholder_tokens(token, vectors)
    own = [text.replace("{}", token) for text in (PLAIN, *OWN)]
    return Probe(
        _rows(base, latents, plain, QUARTERS, "twins"),
        None if twins.masks is None else _shrunk(twins.masks, latents[ALL]),
        _rows(base, dict.fromkeys(families, held_out), prompts, [*TERCILES.values()], "function"),
        base.tokenize([*own, *named[1:], *others], tokens),
        base.tokenize([*named, *named[1:], *others], []),
    )


@torch.no_grad()
def encode_probe(base: BaseModel, probe: Probe, vectors: Tensor | None) -> Tensor:
    """Token states (P, L, H) of a probe's prompts, with vectors (n, H) or with the class word."""
    if vectors is None:
        return base.condition(probe.plain)
    with attached(base.text_encoders, vectors.detach()[None].to(base.device)):
        return base.condition(probe.own)


@torch.no_grad()
def read(base: BaseModel, probe: Probe, states: Tensor) -> Reading:
    """Ask the denoiser, with whatever is attached to it; ``states`` as of :func:`encode_probe`."""
    rows = probe.twins
    shape = (len(rows.groups), rows.levels, -1)
    answers = _ask(base, rows, states)
    by_kind = denoising_loss(answers, rows.target).double().unflatten(0, shape).mean(1).cpu()
    losses = dict(zip(rows.groups, by_kind, strict=True))
    if probe.masks is not None:
        place = rows.groups.index(ALL)
        said, asked = (part.unflatten(0, shape)[place] for part in (answers, rows.target))
        losses["subject"] = masked_loss(said, asked, probe.masks).double().mean(0).cpu()
    rows = probe.function
    shape = (len(rows.groups), rows.levels, -1)
    return Reading(losses, _ask(base, rows, states).unflatten(0, shape))


def _rows(
    base: BaseModel,
    latents: Mapping[str, Tensor],
    prompts: Mapping[str, Sequence[int]],
    levels: Sequence[float],
    stream: str,
) -> Rows:
    """Noise each group's latents (n, C, h, w) at every level, with the same noise."""
    groups, n = tuple(latents), len(next(iter(prompts.values())))
    clean = torch.stack([latents[group] for group in groups])
    shape = (len(levels), *clean.shape[1:])
    noise = torch.randn(shape, generator=generator(0, f"probe/{stream}", 0)).to(clean)
    x = clean[:, None].expand(-1, len(levels), -1, -1, -1, -1).flatten(0, 2)
    e = noise.expand(len(groups), *shape).flatten(0, 2)
    times = torch.tensor([int(level * base.timesteps) for level in levels], device=base.device)
    timesteps = times.repeat_interleave(n).repeat(len(groups))
    asked = torch.tensor([prompts[group] for group in groups], device=base.device)
    return Rows(
        groups,
        len(levels),
        base.add_noise(x, e, timesteps),
        base.target(x, e, timesteps),
        timesteps,
        asked[:, None].expand(-1, len(levels), -1).flatten(),
    )


def _shrunk(masks: Tensor, latents: Tensor) -> Tensor:
    return F.interpolate(masks, latents.shape[-2:], mode="area").to(latents.device)


def _ask(base: BaseModel, rows: Rows, states: Tensor) -> Tensor:
    def answers(i: slice) -> Tensor:
        return base.predict(rows.noisy[i], rows.timesteps[i], states[rows.prompts[i]])

    return in_parts(len(rows.noisy), answers)
