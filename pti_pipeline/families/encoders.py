"""CLIP text encoders: prompts as token ids, and what the last layers but one say of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from pti_pipeline.pivot import expand

WORD = re.compile(r"[a-z]{3,}</w>")
"""How CLIP's vocabulary writes a whole word."""


def check_same_words(tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    """See that the ids of one CLIP tokenizer are those of another, else raise ``ValueError``."""
    if tokenizer.get_vocab() != other.get_vocab():
        raise ValueError("its two CLIP tokenizers know other words")


def tokenize(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], placeholders: Sequence[str]
) -> Tensor:
    """Token ids (P, L); placeholder j has id V + j, and one stands for those of its name."""
    fresh = copy.deepcopy(tokenizer)
    fresh.add_tokens(list(placeholders))
    batch = fresh(
        [expand(prompt, placeholders) for prompt in prompts],
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    ids: Tensor = batch.input_ids
    return ids


def padded_as(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Ids (P, L) padded as another tokenizer of the same words pads them."""
    ended = (ids == tokenizer.eos_token_id).cumsum(1)
    ended = F.pad(ended, (1, 0))[:, :-1] > 0
    return ids.masked_fill(ended, tokenizer.pad_token_id)


def words(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the whole words of three letters or more."""
    return sorted(id for piece, id in tokenizer.get_vocab().items() if WORD.fullmatch(piece))


def table(encoder: nn.Module) -> Tensor:
    """The frozen embedding table, shape (V, H)."""
    rows: Tensor = encoder.get_input_embeddings().weight.detach()  # type: ignore[operator]
    return rows


def pool_at_the_end(encoder: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let an encoder's pooled states be those of the end token, as it was trained.

    Encoders whose configuration is older than 2023 take those of the largest id instead, which is
    the same until there are placeholders.
    """
    for module in encoder.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = tokenizer.eos_token_id


def read(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """States (P, L, H) of the last layer but one, and projected pooled states (P, D)."""
    found = encoder(input_ids=ids, output_hidden_states=True)
    return found.hidden_states[-2], found[0]


def pack(states: Tensor, pooled: Tensor) -> Tensor:
    """One tensor (P, L + 1, H) of states (P, L, H) and, as its last row, pooled states (P, D <= H).

    So a condition is rows of a tensor in every family.
    """
    row = F.pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))
    return torch.cat([states, row[:, None]], 1)


def unpack(condition: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """States, and pooled states of ``width``, that :func:`pack` put together."""
    return condition[:, :-1], condition[:, -1, :width]
