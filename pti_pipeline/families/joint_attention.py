"""What pictures attend to in prompts where both are one sequence, as in Stable Diffusion 3."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from pti_pipeline.families.attention import ROWS, Reduce


@torch.no_grad()
def look(attn: Attention, hidden: Tensor, context: Tensor, reduce: Reduce) -> Tensor:
    """What to keep of a layer's probabilities; see :func:`pti_pipeline.families.attention.watched`.

    Of a picture's attention only the prompt's part is taken, summing to 1 over its tokens.
    """
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
