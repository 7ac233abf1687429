"""Cross-attention as a denoiser computes it, watched without changing its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

ROWS = 8
"""Rows whose probabilities are formed at once: those of a large picture take megabytes each."""

Reduce = Callable[[Tensor], Tensor]
"""From probabilities (rows, heads, pixels, L) to what is kept of each row."""


class Watcher:
    """An attention processor that reports probabilities and leaves the answer to another."""

    def __init__(self, processor: Any, reduce: Reduce, seen: list[Tensor]) -> None:
        self.processor, self.reduce, self.seen = processor, reduce, seen

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        """Answer as the processor behind, and report if another sequence is attended to."""
        if encoder_hidden_states is not None:
            self.seen.append(_watch(attn, hidden_states, encoder_hidden_states, self.reduce))
        answer: Tensor = self.processor(
            attn, hidden_states, encoder_hidden_states, attention_mask, temb, **more
        )
        return answer


@contextmanager
def watched(unet: UNet2DConditionModel, reduce: Reduce) -> Iterator[list[Tensor]]:
    """Let every cross-attention layer report what it attends to, for a while.

    Parameters
    ----------
    unet : UNet2DConditionModel
        With or without a LoRA before its projections.
    reduce : callable
        Takes probabilities, shape (rows, heads, pixels, L), float32, that sum to 1 over the L
        tokens, and returns what to keep, rows first.

    Yields
    ------
    list of Tensor
        Grows by one tensor for each layer at each forward pass, in the order of the layers.
    """
    processors = unet.attn_processors
    seen: list[Tensor] = []
    unet.set_attn_processor({name: Watcher(p, reduce, seen) for name, p in processors.items()})
    try:
        yield seen
    finally:
        unet.set_attn_processor(dict(processors))


@torch.no_grad()
def _watch(attn: Attention, hidden: Tensor, context: Tensor, reduce: Reduce) -> Tensor:
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).mT
    if attn.group_norm is not None:
        hidden = attn.group_norm(hidden.mT).mT
    if attn.norm_cross:
        context = attn.norm_encoder_hidden_states(context)
    query, key = (
        attn.head_to_batch_dim(projected).unflatten(0, (-1, attn.heads))
        for projected in (attn.to_q(hidden), attn.to_k(context))
    )
    kept = []
    for q, k in zip(query.split(ROWS), key.split(ROWS), strict=True):
        scores = attn.get_attention_scores(q.flatten(0, 1), k.flatten(0, 1))
        kept.append(reduce(scores.unflatten(0, (-1, attn.heads)).float()))
    return torch.cat(kept)
