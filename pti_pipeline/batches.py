"""What a training step draws: for each experiment its own rows, prompts, timesteps and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pti_pipeline.data import Subject, prompts_for
from pti_pipeline.families.base import BaseModel
from pti_pipeline.randomness import generator


@dataclass(frozen=True)
class Material:
    """A subject, encoded once.

    Attributes
    ----------
    mean, spread : Tensor, shape (N, C, h, w), float32
        Of the latents' posterior: a new sample of it is drawn at every step.
    ids : Tensor, shape (P, L), int64
        Token ids of every prompt.
    prompts : tuple of tuple of int
        Rows of ``ids`` that fit each picture.
    """

    mean: Tensor
    spread: Tensor
    ids: Tensor
    prompts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Batch:
    """Rows of one step, experiment-major: index k b + i.

    Attributes
    ----------
    latents, noise : Tensor, shape (K b, C, h, w)
    timesteps : Tensor, shape (K b,), int64
    prompts : Tensor, shape (K b,), int64
        Rows of :attr:`Material.ids`.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompts: Tensor


def of_each(tensor: Tensor, experiments: int, rows: slice) -> Tensor:
    """Some rows of each of K experiments' batches; experiment-major, as all rows are."""
    return tensor.unflatten(0, (experiments, -1))[:, rows].flatten(0, 1)


def prepare(base: BaseModel, subject: Subject, tokens: Sequence[str]) -> Material:
    """Encode a subject's pictures and prompts once, for all steps and experiments."""
    mean, spread = base.encode_images(subject.images)
    prompts = prompts_for(subject, tokens[0])
    flat = list(dict.fromkeys(text for texts in prompts for text in texts))
    rows = {text: index for index, text in enumerate(flat)}
    return Material(
        mean, spread, base.tokenize(flat, tokens), tuple(tuple(rows[t] for t in p) for p in prompts)
    )


def draw_batch(
    material: Material,
    seeds: Sequence[int],
    size: int,
    timesteps: int,
    step: int,
    rows: slice = slice(None),
) -> Batch:
    """Draw one step of K experiments; those with equal seeds see the same rows.

    Parameters
    ----------
    material : Material
    seeds : sequence of int, length K
    size : int
        Rows of each experiment.
    timesteps : int
        Of the base's noise schedule; drawn uniformly.
    step : int
    rows : slice
        Which rows of each experiment are wanted; all by default.
    """
    drawn = {seed: _draw(material, seed, size, timesteps, step) for seed in set(seeds)}
    parts = [torch.cat(columns) for columns in zip(*(drawn[s] for s in seeds), strict=True)]
    some = [of_each(part, len(seeds), rows) for part in parts]
    return Batch(*(part.to(material.mean.device) for part in some))


def _draw(
    material: Material, seed: int, size: int, timesteps: int, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = generator(seed, "train", step)
    shape = (size, *material.mean.shape[1:])
    pictures = torch.randint(len(material.mean), (size,), generator=source)
    times = torch.randint(timesteps, (size,), generator=source)
    chance = torch.rand(size, generator=source)
    posterior, noise = (torch.randn(shape, generator=source) for _ in range(2))
    place = pictures.to(material.mean.device)
    latents = material.mean[place] + material.spread[place] * posterior.to(place.device)
    fitting = [material.prompts[int(p)] for p in pictures]
    prompts = [rows[int(c * len(rows))] for rows, c in zip(fitting, chance, strict=True)]
    return latents, noise, times, torch.tensor(prompts)
