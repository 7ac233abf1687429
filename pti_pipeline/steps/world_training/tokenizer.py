"""A CLIP tokenizer whose merges make every word of the caption grammar one token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

LENGTH = 32
"""Tokens of a prompt, with start, end and padding."""


def merge_rules(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in rank order, that leave each of ``words`` whole.

    A merge is added only after all earlier ones have been applied to a word, so it never comes
    before them and no earlier word is broken up again.
    """
    rules: list[tuple[str, str]] = []
    for word in words:
        while len(pieces := _apply(word, rules)) > 1:
            rules.append((pieces[0], pieces[1]))
    return rules


def build_tokenizer(words: Sequence[str], folder: Path) -> CLIPTokenizer:
    """Build the tokenizer, save it in ``folder`` and return it; other text falls back to bytes."""
    rules = merge_rules(words)
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, rules)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=rules, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _apply(word: str, rules: Sequence[tuple[str, str]]) -> list[str]:
    rank = {rule: index for index, rule in enumerate(rules)}
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        pairs = [pair for pair in pairwise(pieces) if pair in rank]
        if not pairs:
            return pieces
        first = min(pairs, key=rank.__getitem__)
        merged: list[str] = []
        for piece in pieces:
            if merged and (merged[-1], piece) == first:
                merged[-1] += piece
            else:
                merged.append(piece)
        pieces = merged
