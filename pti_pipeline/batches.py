"""What a training step draws: for each experiment its own rows, prompts, timesteps and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from pti_pipeline.data import Subject, prompts_for
from pti_pipeline.families.base import BaseModel
from pti_pipeline.objective import PLAIN, Objective
from pti_pipeline.randomness import generator
from pti_pipeline.views import area_weights, crops, in_shapes, mirrored

EVERYWHERE = torch.ones(1, 1, 1, 1)
"""Weights of a loss that counts every place alike."""


@dataclass(frozen=True)
class Material:
    """A subject, encoded once: its N pictures, and other views of them.

    Attributes
    ----------
    mean, spread : Tensor, shape (N, C, h, w), float32
        Of the latents' posterior: a new sample of it is drawn at every step.
    ids : Tensor, shape (P, L), int64
        Token ids of every prompt.
    prompts : tuple of tuple of int
        Rows of ``ids`` that fit each picture.
    area : Tensor, shape (N, 1, h, w), or (1, 1, 1, 1) if all count alike
        Weights of the loss at each place, of mean 1.
    others : tuple of Material
        Pictures of other shapes, with the same ``ids``.
    """

    mean: Tensor
    spread: Tensor
    ids: Tensor
    prompts: tuple[tuple[int, ...], ...]
    area: Tensor = EVERYWHERE
    others: tuple[Material, ...] = ()

    def at(self, step: int) -> Material:
        """Pictures that a step draws from: of one shape, the same for all experiments.

        Each shape comes as often as its share of the pictures.
        """
        if not self.others:
            return self
        shapes = self, *self.others
        counts = torch.tensor([float(len(each.mean)) for each in shapes])
        return shapes[int(counts.multinomial(1, generator=generator(0, "shape", step)))]


@dataclass(frozen=True)
class Batch:
    """Rows of one step, experiment-major: index k b + i.

    Attributes
    ----------
    latents, noise : Tensor, shape (K b, C, h, w)
    timesteps : Tensor, shape (K b,), int64
    prompts : Tensor, shape (K b,), int64
        Rows of :attr:`Material.ids`.
    area : Tensor, shape (K b, 1, h, w) or (K b, 1, 1, 1)
        Weights of the loss at each place.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompts: Tensor
    area: Tensor


def of_each(tensor: Tensor, experiments: int, rows: slice) -> Tensor:
    """Some rows of each of K experiments' batches; experiment-major, as all rows are."""
    return tensor.unflatten(0, (experiments, -1))[:, rows].flatten(0, 1)


def prepare(
    base: BaseModel,
    subject: Subject,
    tokens: Sequence[str],
    objective: Objective = PLAIN,
    crops: Sequence[Subject] = (),
) -> Material:
    """Encode a subject's pictures and prompts once, for all steps and experiments.

    Other views of a picture, its ``crops`` and those that the objective asks for, are pictures
    like others: each is encoded itself, and each is as likely to be drawn.
    """
    views = [subject, *crops]
    if objective.flip == "yes":
        views += [mirrored(view, tokens[0]) for view in views]
    encoded = [base.encode_images(view.images) for view in views]
    mean, spread = (torch.cat(parts) for parts in zip(*encoded, strict=True))
    prompts = [texts for view in views for texts in prompts_for(view, tokens[0])]
    flat = list(dict.fromkeys(text for texts in prompts for text in texts))
    rows = {text: index for index, text in enumerate(flat)}
    fitting = tuple(tuple(rows[t] for t in p) for p in prompts)
    area = EVERYWHERE
    if objective.background < 1:
        masks = [mask for view in views for mask in view.masks]
        area = area_weights(masks, mean.shape[-2:], objective.background)
    return Material(mean, spread, base.tokenize(flat, tokens), fitting, area.to(mean.device))


def prepare_views(
    base: BaseModel, subject: Subject, folder: Path, tokens: Sequence[str], objective: Objective
) -> Material:
    """Encode all that an objective wants to see of a subject, whose pictures are in ``folder``."""
    return _joined(
        [
            prepare(base, some, tokens, objective, crops(some, folder, objective.crops, places))
            for some, places in in_shapes(base, subject, folder, objective)
        ]
    )


def _joined(parts: Sequence[Material]) -> Material:
    """Put materials of several shapes together: all share the prompts of all."""
    ids = torch.cat([part.ids for part in parts])
    starts = accumulate((len(part.ids) for part in parts), initial=0)
    first, *others = [
        replace(part, ids=ids, prompts=tuple(tuple(start + row for row in p) for p in part.prompts))
        for part, start in zip(parts, starts, strict=False)
    ]
    return replace(first, others=tuple(others))


def draw_batch(
    material: Material,
    seeds: Sequence[int],
    size: int,
    timesteps: int,
    step: int,
    rows: slice = slice(None),
    objective: Objective = PLAIN,
) -> Batch:
    """Draw one step of K experiments; those with equal seeds see the same rows.

    Parameters
    ----------
    material : Material
    seeds : sequence of int, length K
    size : int
        Rows of each experiment.
    timesteps : int
        Of the base's noise schedule; drawn uniformly, then :func:`placed`.
    step : int
    rows : slice
        Which rows of each experiment are wanted; all by default.
    objective : Objective
        Which timesteps and noise.
    """
    material = material.at(step)
    drawn = {seed: _draw(material, seed, size, timesteps, step, objective) for seed in set(seeds)}
    parts = [torch.cat(columns) for columns in zip(*(drawn[s] for s in seeds), strict=True)]
    some = [of_each(part, len(seeds), rows) for part in parts]
    return Batch(*(part.to(material.mean.device) for part in some))


def placed(even: Tensor, timesteps: int, objective: Objective) -> Tensor:
    r"""Place evenly drawn integers below ``timesteps`` where the objective wants them.

    An integer i is :math:`u = (i + 1/2) / T`, from 0 to 1. It becomes
    :math:`T (low + (high - low) u^{\exp(-bias)})`, rounded down: with a bias of :math:`\ln 2`
    timesteps gather at the noisy end as the square root of even draws does. Over the whole
    schedule, and without bias, it stays what it was.

    Examples
    --------
    >>> placed(torch.tensor([0, 500, 999]), 1000, Objective(timestep_range="0,0.8")).tolist()
    [0, 400, 799]
    """
    low, high = objective.timestep_span
    share = ((even.double() + 0.5) / timesteps).pow(math.exp(-objective.timestep_bias))
    return (timesteps * (low + (high - low) * share)).long().clamp(max=timesteps - 1)


def _draw(
    material: Material, seed: int, size: int, timesteps: int, step: int, objective: Objective
) -> tuple[Tensor, ...]:
    source = generator(seed, "train", step)
    shape = (size, *material.mean.shape[1:])
    pictures = torch.randint(len(material.mean), (size,), generator=source)
    times = placed(torch.randint(timesteps, (size,), generator=source), timesteps, objective)
    chance = torch.rand(size, generator=source)
    posterior, noise = (torch.randn(shape, generator=source) for _ in range(2))
    if objective.offset_noise:  # drawn last: what is drawn without it stays the same
        offset = torch.randn((*shape[:2], 1, 1), generator=source)
        noise = noise + objective.offset_noise * offset
    place = pictures.to(material.mean.device)
    latents = material.mean[place] + material.spread[place] * posterior.to(place.device)
    fitting = [material.prompts[int(p)] for p in pictures]
    prompts = [rows[int(c * len(rows))] for rows, c in zip(fitting, chance, strict=True)]
    area = material.area.expand(len(material.mean), -1, -1, -1)[place]
    return latents, noise, times, torch.tensor(prompts), area
