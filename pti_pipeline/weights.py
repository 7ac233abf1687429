"""Files of weights: safetensors, with what their headers say in text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

BUNDLED = "bundle_emb."
"""What the names of an embedding begin with inside a LoRA's file, before its word."""

OUR_KEY = "pti"
"""Key of a LoRA file's header for what peft's config does not know: JSON."""


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's tensors, on the CPU, and its header's text."""
    with safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def write_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors under a header, the same to the byte every time.

    Raises
    ------
    OSError
        If it can't be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(_in_order(save(plain, dict(header))))


def _in_order(data: bytes) -> bytes:
    """Sort the text of a file's header, which safetensors leaves in the order of a hash table."""
    end = 8 + int.from_bytes(data[:8], "little")
    facts = json.loads(data[8:end])
    if words := facts.get("__metadata__"):
        facts["__metadata__"] = dict(sorted(words.items()))
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin where 8 bytes do
    return len(text).to_bytes(8, "little") + text + data[end:]
