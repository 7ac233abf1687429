"""What pictures attend to in prompts where both are one sequence, as in Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from pti_pipeline.families.attention import ROWS, Reduce


class Watcher:
    """A processor of joint attention that reports, and leaves the answer to another."""

    def __init__(self, processor: Any, reduce: Reduce, seen: list[Tensor]) -> None:
        self.processor, self.reduce, self.seen = processor, reduce, seen

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **more: Any,
    ) -> Any:
        """Answer as the processor behind, and report if there is a prompt."""
        if encoder_hidden_states is not None:
            self.seen.append(_watch(attn, hidden_states, encoder_hidden_states, self.reduce))
        return self.processor(attn, hidden_states, encoder_hidden_states, *args, **more)


@contextmanager
def watched(transformer: SD3Transformer2DModel, reduce: Reduce) -> Iterator[list[Tensor]]:
    """Let every layer of joint attention report what pictures attend to, for a while.

    As :func:`pti_pipeline.families.attention.watched`; of a picture's attention only the prompt's
    part is taken, as probabilities that sum to 1 over its tokens.
    """
    processors = transformer.attn_processors
    seen: list[Tensor] = []
    transformer.set_attn_processor(
        {name: Watcher(behind, reduce, seen) for name, behind in processors.items()}
    )
    try:
        yield seen
    finally:
        transformer.set_attn_processor(dict(processors))


@torch.no_grad()
def _watch(attn: Attention, hidden: Tensor, context: Tensor, reduce: Reduce) -> Tensor:
    query = attn.to_q(hidden).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    key = attn.add_k_proj(context).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    if attn.norm_q is not None:
        query = attn.norm_q(query)
    if attn.norm_added_k is not None:
        key = attn.norm_added_k(key)
    kept = []
    for q, k in zip(query.split(ROWS), key.split(ROWS), strict=True):
        scores = (q @ k.mT).float() * q.shape[-1] ** -0.5
        kept.append(reduce(scores.softmax(-1)))
    return torch.cat(kept)
