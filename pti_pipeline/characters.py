"""Pictures of characters: prompts that name them, encoded with their own vectors and sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.errors import UsageError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.figures import grid
from pti_pipeline.memory import Pass, halving
from pti_pipeline.pivot import Pivot, attached, placeholder_tokens
from pti_pipeline.preview import WatchSettings
from pti_pipeline.sampling import sample, to_uint8
from pti_pipeline.settings import SampleSettings

ROWS = 64
"""Pictures sampled in one batch, over all characters."""

PLAIN = "a photo of {}"
"""Prompt that says nothing of position or scene: the base model must draw random ones."""


@dataclass(frozen=True)
class Characters:
    """K characters on a base model, or its class word.

    Attributes
    ----------
    name : str
        What stands for the character in a prompt: its token, or the class word.
    vectors : Tensor, shape (K, n, H)
        Learned vectors; n = 0 for the class word.
    tokens : tuple of str, length n
        Placeholder tokens of the vectors; those of the name by default.
    """

    name: str
    vectors: Tensor
    tokens: tuple[str, ...] = ()


def class_word(word: str = "") -> Characters:
    """Stand-in without learned vectors: the base model's own answer to a word, or to none."""
    return Characters(word, torch.zeros(1, 0, 1))


def together(pivots: Sequence[Pivot]) -> Characters:
    """Characters that share a prompt, each under its own token; ``{}`` stands for all of them.

    Raises
    ------
    UsageError
        If a token is, or is part of, another's.
    """
    names = [pivot.token for pivot in pivots]
    for i, one in enumerate(names):
        for other in names[:i]:
            if one in other or other in one:
                what = f"the tokens '{other}' and '{one}' can't be told apart in a prompt"
                raise UsageError("E254", what, "train one of them again under another token")
    vectors = torch.cat([pivot.embedding for pivot in pivots])
    tokens = [t for pivot in pivots for t in placeholder_tokens(pivot.token, len(pivot.embedding))]
    return Characters(" and ".join(names), vectors[None], tuple(tokens))


def tokenized(base: BaseModel, who: Characters, prompts: Sequence[str]) -> Tensor:
    """Token ids of prompts, ``{}`` filled with the name; shape (P, L)."""
    n = who.vectors.shape[1]
    tokens = who.tokens or placeholder_tokens(who.name, n)[:n]
    return base.tokenize([p.replace("{}", who.name) for p in prompts], tokens)


@torch.no_grad()
def encode(base: BaseModel, who: Characters, prompts: Sequence[str]) -> Tensor:
    """Token states of prompts, ``{}`` filled with the name; shape (K, P, L, H)."""
    experiments, n = who.vectors.shape[:2]
    rows = tokenized(base, who, prompts).repeat(experiments, 1)
    if not n:
        return base.condition(rows).unflatten(0, (experiments, -1))
    with attached(base.text_encoders, who.vectors.detach().to(base.device)):
        return base.condition(rows).unflatten(0, (experiments, -1))


def content_positions(base: BaseModel, ids: Tensor) -> Tensor:
    """Where ids (P, L) are words: not the begin, the end or the padding; bool, (P, L)."""
    return ~torch.isin(ids, base.tokenize([""], [])) & (ids >= 0)


def name_positions(base: BaseModel, who: Characters, ids: Tensor) -> Tensor:
    """Where ids (P, L) stand for the character, all of its tokens; bool, (P, L)."""
    if who.vectors.shape[1]:
        return ids >= len(base.vocabulary())
    alone = base.tokenize([who.name], [])
    name = alone[content_positions(base, alone)]
    found = torch.zeros_like(ids, dtype=torch.bool)
    if len(name):
        starts = (ids.unfold(1, len(name), 1) == name).all(2)
        for row, column in starts.nonzero().tolist():
            found[row, column : column + len(name)] = True
    return found


def draw(
    base: BaseModel,
    who: Characters,
    prompts: Sequence[str],
    seeds: Sequence[int],
    how: SampleSettings,
) -> Tensor:
    """Draw prompt i with seed i, for every character; shape (K, n, 3, S, S) in [-1, 1].

    Fewer pictures at once where memory runs out; not even one: raises ``ResourceError``.
    """
    states, negative = encode(base, who, prompts), base.unconditional()
    size = max(1, ROWS // len(states))
    edges, last = [*range(0, len(prompts), size), len(prompts)], (how.steps, how.guidance)

    def drawn(parts: Sequence[Pass]) -> Tensor:
        pieces = [sample(base, states[:, i], negative, seeds[i], *last) for _, i in parts]
        return torch.cat(pieces, 1)

    return halving([0, 1], edges, drawn)[2]


def preview(
    base: BaseModel, who: Characters, how: SampleSettings, watch: WatchSettings
) -> list[NDArray[np.uint8]]:
    """Draw each character's sample grid: a row for each prompt, a column for each seed."""
    seeds = watch.preview_seeds
    prompts = [p for p in watch.preview for _ in seeds]
    images = draw(base, who, prompts, [*seeds] * len(watch.preview), how)
    return [grid(part, len(seeds)) for part in to_uint8(images)]
