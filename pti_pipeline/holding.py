"""Rows beside a training's own, at which a model's answers are held where they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from pti_pipeline import lora
from pti_pipeline.batches import Material
from pti_pipeline.families.base import BaseModel
from pti_pipeline.memory import in_parts
from pti_pipeline.pivot import Pivot
from pti_pipeline.randomness import generator
from pti_pipeline.sampling import sample
from pti_pipeline.settings import FinetuneSettings, SampleSettings

SEED = 10**6
"""Of the first sample that is held: no evaluation draws from such seeds."""
ENCODED = 8
"""Pictures that are encoded at once."""

Draw = Callable[[int, int], "Rows"]
"""``draw(seed, step)``: rows of one experiment at one step."""


@dataclass(frozen=True)
class Ground:
    """What a regularizer works on.

    Attributes
    ----------
    base : BaseModel
    adapter : Adapter
        The LoRAs under training, attached to the base.
    pivot : Pivot
    prompts : tuple of str
        Those of the training, ``{}`` in place of the token.
    material : Material
        The pictures.
    settings : FinetuneSettings
    """

    base: BaseModel
    adapter: lora.Adapter
    pivot: Pivot
    prompts: tuple[str, ...]
    material: Material
    settings: FinetuneSettings


@dataclass(frozen=True)
class Prompts:
    """What text encoders are told, and what the base model's make of it.

    Attributes
    ----------
    ids : Tensor, shape (P, L), int64
        Token ids.
    vectors : Tensor, shape (P, n, H)
        What the placeholder's tokens are, in each prompt.
    states : Tensor, shape (P, ...)
        The base's condition.
    """

    ids: Tensor
    vectors: Tensor
    states: Tensor


@dataclass(frozen=True)
class Rows:
    """What a denoiser is asked, and what it should answer.

    Attributes
    ----------
    noisy : Tensor, shape (n, C, h, w)
    timesteps : Tensor, shape (n,), int64
    states : Tensor, shape (n, L, H)
        Token states of each row's prompt, by the base's own text encoders.
    target : Tensor, shape (n, C, h, w)
    weights : Tensor, shape (n,)
        Of each row's loss.
    area : Tensor, shape (n, 1, h, w) or (n, 1, 1, 1)
        Weights at each place.
    ids, vectors : Tensor, shape (n, L) and (n, v, H)
        What the states are of, for text encoders under training.
    """

    noisy: Tensor
    timesteps: Tensor
    states: Tensor
    target: Tensor
    weights: Tensor
    area: Tensor
    ids: Tensor
    vectors: Tensor

    def take(self, index: Tensor) -> Rows:
        """Rows of an index."""
        return Rows(*(getattr(self, f.name)[index] for f in fields(self)))


def hold(ground: Ground, prompts: Prompts, answers: bool = True) -> Draw:
    """Rows at which the model's answers are held.

    Parameters
    ----------
    ground : Ground
    prompts : Prompts
    answers : bool
        Whether the target is the base model's own answer; else it is the noise (or velocity).

    Returns
    -------
    callable
        ``rows(seed, step)``, as many as a batch has, of the shape of that step's pictures. Answers
        are of a bank that is drawn once, the same for every experiment of a sweep, or of each step;
        noise is drawn anew at each step, which costs nothing.

    Raises
    ------
    ResourceError
        If memory does not hold a single row.
    """
    material = ground.material
    if not material.others:
        return _held(ground, prompts, answers)
    shapes = material, *material.others
    draws = {
        each.mean.shape[-2:]: _held(replace(ground, material=each), prompts, answers)
        for each in shapes
    }
    return lambda seed, step: draws[material.at(step).mean.shape[-2:]](seed, step)


def _held(ground: Ground, prompts: Prompts, answers: bool) -> Draw:
    """Rows of pictures of one shape."""
    size, bank = ground.settings.batch_size, ground.settings.reg_bank
    with lora.disabled(ground.adapter):
        samples = _drawn(ground, prompts.states) if ground.settings.reg_latents == "base" else None

    def fresh(source: torch.Generator, count: int) -> Rows:
        rows = _noised(ground, prompts, samples, source, count)
        return replace(rows, target=_ask(ground, rows)) if answers else rows

    if not (bank and answers):
        return lambda seed, step: fresh(generator(seed, "regularizer", step), size)
    known = fresh(generator(0, "regularizer/bank", 0), bank)

    def pick(seed: int, step: int) -> Rows:
        source = generator(seed, "regularizer", step)
        return known.take(torch.randint(bank, (size,), generator=source).to(ground.base.device))

    return pick


def _drawn(ground: Ground, states: Tensor) -> Tensor:
    """Latents of a sample of the base model for each of P prompts' states."""
    base, usual = ground.base, SampleSettings()
    how, seeds = (usual.steps, usual.guidance), range(SEED, SEED + len(states))
    negative, shape = base.unconditional(), ground.material.mean.shape[-2:]

    def draw(some: slice) -> Tensor:
        pictures = sample(base, states[some][None], negative, seeds[some], *how, shape)[0]
        return torch.cat([base.encode_images(few)[0] for few in pictures.split(ENCODED)])

    return in_parts(len(states), draw)


def _noised(
    ground: Ground, asked: Prompts, samples: Tensor | None, source: torch.Generator, count: int
) -> Rows:
    """Draw prompts, latents (each prompt's sample, or any picture), timesteps and noise."""
    base, material = ground.base, ground.material
    prompts = torch.randint(len(asked.ids), (count,), generator=source).to(base.device)
    pictures = torch.randint(len(material.mean), (count,), generator=source).to(base.device)
    even = torch.randint(base.timesteps, (count,), generator=source).to(base.device)
    times = base.drawn(even)
    shape = (count, *material.mean.shape[1:])
    noise, posterior = (torch.randn(shape, generator=source).to(base.device) for _ in range(2))
    if samples is None:
        latents = material.mean[pictures] + material.spread[pictures] * posterior
    else:
        latents = samples[prompts]
    late = ground.settings.reg_timesteps == "noisy"
    weights = 2 * times / base.timesteps if late else torch.ones_like(times)
    noisy, target = base.add_noise(latents, noise, times), base.target(latents, noise, times)
    area = torch.ones_like(material.area[:1]).expand(count, -1, -1, -1)  # it holds everywhere
    words = asked.ids[prompts], asked.vectors[prompts]
    weights = weights.to(noisy.dtype)
    return Rows(noisy, times, asked.states[prompts], target, weights, area, *words)


@torch.no_grad()
def _ask(ground: Ground, rows: Rows) -> Tensor:
    """Answers of the base model itself: of the denoiser with its LoRAs off."""

    def answers(i: slice) -> Tensor:
        return ground.base.predict(rows.noisy[i], rows.timesteps[i], rows.states[i])

    with lora.disabled(ground.adapter):
        return in_parts(len(rows.noisy), answers)


def gather(draws: Sequence[Draw], seeds: Sequence[int], step: int, some: slice) -> Rows:
    """Some rows of each of K experiments, experiment-major; of equal seed and pivot the same."""
    pairs = list(zip(draws, seeds, strict=True))
    drawn = {pair: pair[0](pair[1], step) for pair in dict.fromkeys(pairs)}
    return Rows(
        *(torch.cat([getattr(drawn[pair], f.name)[some] for pair in pairs]) for f in fields(Rows))
    )


def beside(own: Rows, held: Rows, experiments: int) -> Rows:
    """Put rows beside others: of each of K experiments, first its ``own``, then its ``held``."""

    def joined(name: str) -> Tensor:
        parts = (getattr(rows, name).unflatten(0, (experiments, -1)) for rows in (own, held))
        return torch.cat([*parts], 1).flatten(0, 1)

    return Rows(*(joined(f.name) for f in fields(Rows)))
