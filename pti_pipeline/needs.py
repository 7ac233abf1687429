"""Memory that a training needs, part by part: told before, by the base model's shapes alone.

The very steps run on the meta device, whose tensors have no numbers, while what is live is counted;
see :mod:`pti_pipeline.live`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pti_pipeline import lora, travel
from pti_pipeline.batches import Material
from pti_pipeline.data import TEMPLATES
from pti_pipeline.families.autoencoder import pictures_at_once
from pti_pipeline.families.base import BaseModel
from pti_pipeline.families.drafts import Draft
from pti_pipeline.families.recomputing import recomputed
from pti_pipeline.inversion import token_losses
from pti_pipeline.live import Efficient, counted, most_bytes
from pti_pipeline.losses import pack_losses
from pti_pipeline.noising import noised
from pti_pipeline.optimizers import Manner, update
from pti_pipeline.settings import FinetuneSettings, InvertSettings
from pti_pipeline.state import State
from pti_pipeline.targets import chosen
from pti_pipeline.training import Losses, rates

T5_LENGTH = 256
"""Tokens of a prompt that T5 reads."""

Settings = InvertSettings | FinetuneSettings
Trained = tuple[Sequence[Tensor], Callable[[], Losses]]
"""Parameters, and the losses of a pass."""


@dataclass(frozen=True)
class Weights:
    """Bytes of a base model's frozen parts; ``t5`` is 0 where it has none."""

    denoiser: int
    encoders: int
    t5: int
    vae: int


@dataclass(frozen=True)
class Step:
    """Bytes of one optimizer update, beside the weights.

    Attributes
    ----------
    kept : int
        From step to step: what is trained, what its optimizer remembers, and encoded prompts.
    held : int
        What a forward pass leaves for the backward one.
    more : int
        What the backward pass or the update have beside those at once, at most.
    """

    kept: int
    held: int
    more: int


@dataclass(frozen=True)
class Asides:
    """Most bytes, beside the weights, of what is done between steps.

    Attributes
    ----------
    encoding, decoding : int
        One picture; of small ones as many as are encoded at once.
    reading : int
        The prompts.
    predicting : int
        A step of the sampler, of one picture.
    """

    encoding: int
    decoding: int
    reading: int
    predicting: int


def weights_of(draft: Draft) -> Weights:
    """Bytes of the frozen parts."""
    base = draft.base
    encoders = sum(map(_bytes, base.text_encoders))
    t5 = _bytes(draft.t5) if draft.t5 else 0
    return Weights(_bytes(base.denoiser), encoders, t5, _bytes(draft.vae))


def asides_of(draft: Draft) -> Asides:
    """What is done between steps: encoding, reading prompts and sampling."""
    base, device = draft.base, draft.base.device
    side = base.resolution
    together = pictures_at_once(side)
    pixels = torch.zeros(together, 3, side, side, device=device)
    latents, times = base.start_latents(range(together)), torch.zeros(2, device=device)
    with torch.no_grad():
        both = base.condition(base.tokenize(["", ""], []))
        noisy = base.start_latents(range(2))
        works: dict[str, Callable[[], object]] = {
            "encoding": lambda: base.encode_images(pixels),
            "decoding": lambda: base.decode(latents),
            "reading": lambda: _read(draft),
            "predicting": lambda: base.predict(noisy, times, both),
        }
        return Asides(**{name: most_bytes(work, device) for name, work in works.items()})


def step_of(base: BaseModel, settings: Settings, experiments: int = 1) -> Step:
    """One update of K experiments, in one pass of a micro-batch of each.

    Parameters
    ----------
    base : BaseModel
        On the meta device, or on a real one: then the update is done there, and measured.
    settings : InvertSettings or FinetuneSettings
        Of each. What a regularizer adds is not counted.
    experiments : int
    """
    if isinstance(settings, FinetuneSettings):
        training = _tuning(base, settings, experiments)
    else:
        training = _inversion(base, settings, experiments)
    lr, clip = rates([settings] * experiments, torch.empty(0, device=base.device))
    with counted(base.device) as live, training as (parameters, loss):
        state = State.begin(experiments, base.device)
        state.bind(parameters)

        def descend(gradients: Sequence[Tensor]) -> None:
            update(state, gradients, state.alive, lr, clip, Manner(settings.optimizer))

        descend([torch.zeros_like(p) for p in parameters])  # now the optimizer remembers
        pieces = 0 < settings.micro_batch < settings.batch_size
        earlier = [torch.zeros_like(p) for p in parameters if pieces]
        kept = live.now
        total = loss().total.sum()
        held, live.most = live.now - kept, live.now
        gradients = torch.autograd.grad(total, parameters, materialize_grads=True)
        descend([a + b for a, b in zip(earlier, gradients, strict=True)] if pieces else gradients)
        return Step(kept, held, live.most - kept - held)


@contextmanager
def _inversion(base: BaseModel, settings: InvertSettings, experiments: int) -> Iterator[Trained]:
    shape = (experiments, settings.vectors, sum(base.widths))
    vectors = torch.zeros(shape, device=base.device)
    spared = [base.denoiser, *base.text_encoders] if settings.checkpointing else []
    material, some = _material(base), _some(settings)

    def loss() -> Losses:
        with recomputed(spared, lambda: (nullcontext(), Efficient())):
            seeds = range(experiments)
            return token_losses(base, material, vectors, seeds, settings.batch_size, 0, some)

    yield [vectors], loss


@contextmanager
def _tuning(base: BaseModel, settings: FinetuneSettings, experiments: int) -> Iterator[Trained]:
    seeds, some, size = range(experiments), _some(settings), settings.batch_size
    material = _material(base)
    with torch.no_grad():
        states = base.condition(material.ids)
    endings = chosen(base.denoiser, settings, base.feed_forward)
    encoders = base.encoders if settings.text_encoder == "yes" else lora.NONE
    how = settings.rslora == "yes", encoders, settings.dora == "yes"
    adapter = lora.attach(base.denoiser, settings.rank, settings.alpha, endings, seeds, *how)
    spared = [base.denoiser, *encoders.values()] if settings.checkpointing else []

    def loss() -> Losses:
        asked = noised(base, material, seeds, size, 0, some)
        with recomputed(spared, lambda: (nullcontext(), Efficient())):
            if encoders:
                condition = base.condition(material.ids[asked.prompts])
            else:
                condition = states[asked.prompts]
            answers = base.predict(asked.noisy, asked.timesteps, condition)
        told = pack_losses(answers, asked.target, asked.area, asked.weights, experiments, size)
        return Losses.plain(*told)

    before = travel.place(adapter)  # where distances are taken from
    try:
        yield adapter.parameters, loss
    finally:
        lora.detach(adapter)
        del before


def _material(base: BaseModel) -> Material:
    """A picture, and the prompts of one without a caption."""
    latents = torch.zeros_like(base.start_latents([0]))
    ids = base.tokenize(TEMPLATES, []).clone()  # made here, and so counted
    area = torch.ones(1, 1, 1, 1, device=base.device)
    return Material(latents, latents, ids, (tuple(range(len(ids))),), area)


def _some(settings: Settings) -> slice:
    return slice(settings.micro_batch or settings.batch_size)


def _read(draft: Draft) -> Tensor:
    """Read the prompts, T5 one after the other."""
    if draft.t5:
        draft.t5(torch.zeros(1, T5_LENGTH, dtype=torch.int64, device=draft.base.device))
    return draft.base.condition(draft.base.tokenize(TEMPLATES, []))


def _bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
