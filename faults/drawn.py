"""Random texts, JSON and mutants of files, from a seeded generator."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

WORDS = (
    "", " ", ",", ":", "=", "-", "+", ".", "e", "E", "0", "1", "2", "9", "nan", "inf", "-inf",
    "1e400", "1e-400", "0x1", "1_0", "0.001", "3e-3", "9" * 25, "9" * 5000, "rank", "vectors",
    "steps", "kappa",
    "regularizer", "locality", "kohya", "merged", "<mochi>", "{}", "{0}", "%s", "../", "/", "\\",
    "\x00", "\n", "\r", "\t", "\x1b[2J", "'", '"', "$(id)", "`", ";", "|", "é", "雪", "\u202e",
    "\u0661",
    "\ud800", "\U0001f407", "models:/", "@", "sqlite:///", "yes", "no", "None", "null", "[", "]",
    "{",
    "0" * 32, "base_model.model.", "unet.", ".lora_A.weight", "lora_unet_", "bundle_emb.",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30, -(10**9))
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"))


def text(rng: Random, most: int = 6) -> str:
    """Some words that parsers stumble over, one behind the other."""
    return "".join(rng.choice(WORDS) for _ in range(rng.randint(0, most)))


def number(rng: Random) -> float:
    """A number that settings stumble over."""
    return rng.choice((*NUMBERS, *FLOATS, rng.uniform(-2, 2), rng.randint(-10, 2000)))


def value(rng: Random, depth: int = 3) -> Any:
    """Anything that JSON can say."""
    kind = rng.randrange(8 if depth else 5)
    if kind < 2:
        return text(rng)
    if kind < 5:
        return (None, True, number(rng))[kind - 2]
    if kind < 7:
        return [value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return {text(rng, 2): value(rng, depth - 1) for _ in range(rng.randint(0, 3))}


def changed(rng: Random, node: Any) -> Any:
    """The same JSON with one place of it changed, gone or more."""
    if isinstance(node, dict) and node and rng.random() < 0.8:
        key = rng.choice(list(node))
        way = rng.randrange(4)
        if way == 0:
            return {k: v for k, v in node.items() if k != key}
        if way == 1:
            return {**node, text(rng, 2): value(rng)}
        return {**node, key: changed(rng, node[key])}
    if isinstance(node, list) and node and rng.random() < 0.8:
        place = rng.randrange(len(node))
        if rng.random() < 0.3:
            return node[:place] + node[place + 1 :]
        return [*node[:place], changed(rng, node[place]), *node[place + 1 :]]
    return value(rng)


def mutant(rng: Random, data: bytes) -> bytes:
    """The same bytes with a few of them changed, gone, doubled or moved."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(MUTATIONS)(rng, data)
    return data


def _flip(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) or 1)
    return (
        data[:place]
        + bytes(b ^ (1 << rng.randrange(8)) for b in data[place:][:1])
        + data[place + 1 :]
    )


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 4, 16, 100)) :]


def _insert(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 2, 4, 16))) + data[place:]


def _double(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start : start + rng.choice((4, 16, 64))] + data[start:]


def _integer(rng: Random, data: bytes) -> bytes:
    """Put a number where a length or an offset may be."""
    kind = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(kind)
    place = rng.choice((rng.randrange(len(data) + 1), rng.randrange(min(len(data), 64) + 1)))
    chosen = abs(rng.choice((*NUMBERS, rng.randrange(300)))) % 2 ** (8 * size)
    return data[:place] + struct.pack(kind, chosen) + data[place + size :]


def _random(rng: Random, data: bytes) -> bytes:
    return rng.randbytes(rng.randrange(200)) if rng.random() < 0.1 else _flip(rng, data)


MUTATIONS = (_flip, _flip, _cut, _remove, _insert, _double, _integer, _integer, _random)


def tensors_mutant(rng: Random, data: bytes) -> bytes:
    """A safetensors file with its header changed as JSON, or as bytes."""
    if rng.random() < 0.5:
        return mutant(rng, data)
    length = int.from_bytes(data[:8], "little")
    header = changed(rng, json.loads(data[8 : 8 + length]))
    said = json.dumps(header).encode("utf-8", "replace")
    return len(said).to_bytes(8, "little") + said + data[8 + length :]


def json_mutant(rng: Random, facts: Any) -> bytes:
    """A JSON file with a place of it changed, or its bytes."""
    said = json.dumps(changed(rng, facts) if rng.random() < 0.7 else facts)
    data = said.encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        return b"[" * 20_000
    return data if rng.random() < 0.6 else mutant(rng, data)
