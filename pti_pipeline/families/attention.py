"""Cross-attention as a denoiser computes it, watched without changing its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

ROWS = 8
"""Rows whose probabilities are formed at once: those of a large picture take megabytes each."""

Reduce = Callable[[Tensor], Tensor]
"""From probabilities (rows, heads, pixels, L) to what is kept of each row."""


Look = Callable[[Attention, Tensor, Tensor, Reduce], Tensor]
"""What is kept of a layer that attends from hidden states to a prompt's."""


@torch.no_grad()
def look(attn: Attention, hidden: Tensor, context: Tensor, reduce: Reduce) -> Tensor:
    """What to keep of a cross-attention layer's probabilities."""
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


class Watcher:
    """An attention processor that reports probabilities and leaves the answer to another."""

    def __init__(self, processor: Any, look: Callable[..., Tensor], seen: list[Tensor]) -> None:
        self.processor, self.look, self.seen = processor, look, seen

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **more: Any,
    ) -> Any:
        """Answer as the processor behind, and report if another sequence is attended to."""
        if encoder_hidden_states is not None:
            self.seen.append(self.look(attn, hidden_states, encoder_hidden_states))
        return self.processor(
            attn, hidden_states, encoder_hidden_states, attention_mask, temb, **more
        )


@contextmanager
def watched(denoiser: Any, reduce: Reduce, look: Look = look) -> Iterator[list[Tensor]]:
    """Let every layer that attends to a prompt report what it attends to, for a while.

    Parameters
    ----------
    denoiser : UNet2DConditionModel or SD3Transformer2DModel
        With or without a LoRA before its projections.
    reduce : callable
        Takes probabilities, shape (rows, heads, pixels, L), float32, that sum to 1 over the L
        tokens, and returns what to keep, rows first.
    look : callable
        How a layer's probabilities are formed; as in cross-attention by default.

    Yields
    ------
    list of Tensor
        Grows by one tensor for each layer at each forward pass, in the order of the layers.
    """
    processors = denoiser.attn_processors
    seen: list[Tensor] = []

    def looked(attn: Attention, hidden: Tensor, context: Tensor) -> Tensor:
        return look(attn, hidden, context, reduce)

    denoiser.set_attn_processor({n: Watcher(p, looked, seen) for n, p in processors.items()})
    try:
        yield seen
    finally:
        denoiser.set_attn_processor(dict(processors))
