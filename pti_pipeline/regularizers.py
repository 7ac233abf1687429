"""Regularizers: what keeps a tuning from giving up more of the base model than its subject asks.

A new one is one function here and one line in :data:`REGULARIZERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pti_pipeline import lora
from pti_pipeline.batches import Material
from pti_pipeline.characters import Characters, class_word, encode, tokenized
from pti_pipeline.errors import UsageError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.holding import Draw, Ground, Prompts, hold
from pti_pipeline.pivot import Pivot, attached
from pti_pipeline.randomness import generator
from pti_pipeline.settings import FinetuneSettings

PROMPTS = 48
"""Prompts that answers are held at, each with a sample of the base model."""


@dataclass(frozen=True)
class Regularization:
    """What a regularizer adds to a training.

    Attributes
    ----------
    rows : callable, optional
        ``rows(seed, step)``: rows beside the training's own, whose weighted loss is added.
    ball : bool
        Whether the LoRA is held within ``until_distance``.
    """

    rows: Draw | None = None
    ball: bool = False


def none(_: Ground) -> Regularization:
    """Only the pictures, and only their loss."""
    return Regularization()


def locality(ground: Ground) -> Regularization:
    r"""Answer like the base model around the pivot, after Roich et al. (2022, eq. 4).

    In StyleGAN's W space the neighbour of a pivot lies on a ball around it, towards a random other
    latent. Here words are the others: with the embedding :math:`e_p` of the pivot and :math:`e_z`
    of a random word, prompts hold

    .. math:: e_r = e_p + \alpha (e_z - e_p) / \|e_z - e_p\|, \quad
              \alpha = \kappa \|e_p - e_{init}\|

    in the token's place, and the loss is the mean squared difference of the answers.

    Raises
    ------
    UsageError
        If the pivot is where it started, so that the ball is a point.
    """
    base, pivot = ground.base, ground.pivot
    if torch.equal(pivot.embedding, pivot.start):
        what = "the pivot is its class word itself, so that locality has no radius"
        raise UsageError("E232", what, "choose a pivot that has moved, or use class-preservation")
    vectors = neighbours(pivot, base.words().cpu().float(), ground.settings.kappa, PROMPTS)
    who = Characters(pivot.token, vectors.to(base.device))
    ids = _repeated(tokenized(base, who, ground.prompts))
    with torch.no_grad(), attached(base.text_encoders, who.vectors):
        states = base.condition(ids)
    return Regularization(hold(ground, Prompts(ids, who.vectors, states)))


def class_preservation(ground: Ground) -> Regularization:
    """Answer like the base model to the class word.

    What kohya's trainer, OneTrainer, SimpleTuner and ai-toolkit call output or prior preservation.
    """
    return Regularization(hold(ground, _class_prompts(ground)))


def prior_preservation(ground: Ground) -> Regularization:
    """Go on learning pictures of the class, drawn by the base model (Ruiz et al. 2023, eq. 2).

    The target is the noise itself, as for the training's own pictures.
    """
    return Regularization(hold(ground, _class_prompts(ground), answers=False))


def weight_ball(_: Ground) -> Regularization:
    """Hold the LoRA within ``until_distance``, by projection (Gouk et al. 2021)."""
    return Regularization(ball=True)


def timestep_rank(ground: Ground) -> Regularization:
    """Learn from noisier pictures with fewer ranks (T-LoRA, Soboleva et al. 2025).

    Layouts are decided where it is noisiest.
    """
    lora.rank_by_timestep(ground.adapter, ground.base.timesteps)
    return Regularization()


Regularize = Callable[[Ground], Regularization]

REGULARIZERS: dict[str, Regularize] = {
    "none": none,
    "locality": locality,
    "class-preservation": class_preservation,
    "prior-preservation": prior_preservation,
    "weight-ball": weight_ball,
    "timestep-rank": timestep_rank,
}
"""By the name that users write."""


def find(name: str) -> Regularize:
    """Regularizer of a name.

    Raises
    ------
    UsageError
        If there is none; it names those known.
    """
    if name not in REGULARIZERS:
        what = f"no regularizer is called '{name}'"
        raise UsageError("E232", what, f"use one of {', '.join(REGULARIZERS)}")
    return REGULARIZERS[name]


def regularize(
    base: BaseModel,
    adapter: lora.Adapter,
    material: Material,
    pivots: Sequence[Pivot],
    prompts: tuple[str, ...],
    settings: FinetuneSettings,
) -> list[Regularization]:
    """What the regularizer of ``settings`` adds to each of K experiments.

    It is made once for each distinct pivot. See :class:`pti_pipeline.holding.Ground`.
    """
    work = find(settings.regularizer)
    distinct = {id(pivot): pivot for pivot in pivots}
    with lora.disabled(adapter):
        made = {
            key: work(Ground(base, adapter, pivot, prompts, material, settings))
            for key, pivot in distinct.items()
        }
    return [made[id(pivot)] for pivot in pivots]


def neighbours(pivot: Pivot, words: Tensor, kappa: float, count: int) -> Tensor:
    """Points on a ball around the pivot, each towards other words.

    Parameters
    ----------
    pivot : Pivot
        Of n vectors.
    words : Tensor, shape (W, H)
        Embeddings of words; n random ones make a direction.
    kappa : float
        Radius over the distance from initializer to pivot.
    count : int

    Returns
    -------
    Tensor, shape (count, n, H), float32
        The norm is taken over all vectors, as PTI takes it over all of its layers' latents.
    """
    start = pivot.embedding
    chosen = torch.randint(
        len(words), (count, len(start)), generator=generator(0, "regularizer/words", 0)
    )
    away = words[chosen] - start
    radius = kappa * (start - pivot.start).norm()
    return start + radius * away / away.flatten(1).norm(dim=1)[:, None, None]


def _class_prompts(ground: Ground) -> Prompts:
    """The training's prompts with the class word, one for each sample; no token is in them."""
    base, pivot = ground.base, ground.pivot
    if not pivot.initializer:
        raise UsageError("E232", "this pivot has no class word", "invert with --initializer")
    who = class_word(pivot.initializer)
    states = encode(base, who, ground.prompts)[0]
    unread = pivot.embedding.to(base.device).expand(PROMPTS, -1, -1)
    ids = tokenized(base, who, ground.prompts)
    return Prompts(_repeated(ids), unread, _repeated(states))


def _repeated(rows: Tensor) -> Tensor:
    """Rows over and over, one for each sample."""
    return rows[torch.arange(PROMPTS) % len(rows)]
