"""Which words a tokenizer lets stand for a character, or start one."""

from __future__ import annotations

import copy

from transformers import PreTrainedTokenizerBase

from pti_pipeline.errors import UsageError

LONGEST = 64
"""Letters of a placeholder token."""
SHOWN = 8
"""Pieces of an initializer that an error shows."""


def check_token(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Raise ``UsageError`` if ``token`` can't be a placeholder token."""
    odd = not token.isprintable() or set(token) & set(" {}")
    if not token or odd or len(token) > LONGEST:
        hint = f"use one word such as <mochi>, of at most {LONGEST} letters"
        raise UsageError("E203", f"'{token}' can't be a placeholder token", hint)
    vocabulary = tokenizer.get_vocab()
    if token in vocabulary or f"{token.lower()}</w>" in vocabulary:
        what = f"'{token}' is already a word of the base model"
        raise UsageError("E204", what, "use one like <mochi>")
    fresh = copy.deepcopy(tokenizer)
    fresh.add_tokens([token])
    own = fresh.convert_tokens_to_ids(token)
    if fresh(f"a photo of {token}").input_ids.count(own) != 1:  # it would be found in "photo"
        what = f"'{token}' is part of other words"
        raise UsageError("E204", what, "put it in angle brackets, like <mochi>")


def initializer_id(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """Token id of a word that is one token; else raise ``UsageError``."""
    ids = tokenizer.encode(word, add_special_tokens=False)
    hint = "use a word that the base model knows as one token, such as cat"
    if len(ids) != 1:
        pieces = " ".join(tokenizer.convert_ids_to_tokens(ids[:SHOWN]))
        what = f"the initializer '{word[:LONGEST]}' is {len(ids)} tokens ({pieces})"
        raise UsageError("E205", what, hint)
    if ids[0] in tokenizer.all_special_ids:
        raise UsageError("E205", f"the initializer '{word}' is no word of the base model", hint)
    return int(ids[0])
