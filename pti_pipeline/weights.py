"""Files of weights: safetensors, with what their headers say in text."""

from __future__ import annotations

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
    """Write tensors under a header; what can't be written is an ``OSError``."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(plain, dict(header)))
