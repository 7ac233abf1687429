"""Weights under the names of kohya's trainers, which A1111 and ComfyUI read.

Of a LoRA: sd-scripts' ``networks/lora.py``. Of an embedding: its ``train_textual_inversion.py``.
Of an embedding inside a LoRA's file: A1111's "bundle" (stable-diffusion-webui, pull request 13568),
which ComfyUI's ``load_embed`` reads too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pti_pipeline.errors import ModelError
from pti_pipeline.pivot import Pivot, by_encoder
from pti_pipeline.weights import BUNDLED

OURS = re.compile(r"unet\.(.+)\.lora\.(down|up)\.weight")
"""Names in the LoRA files that this project writes: diffusers' own."""


def lora_weights(weights: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Rename the weights of a LoRA file of ours, and write alpha, without which readers take r.

    Parameters
    ----------
    weights : mapping
        Under diffusers' names.
    alpha : float
        The update is scaled by alpha / r.

    Raises
    ------
    ModelError
        If a name is another.
    """
    found = {}
    for name, value in weights.items():
        match = OURS.fullmatch(name)
        if match is None:
            raise ModelError("E405", f"this LoRA holds '{name}'", "give one that pti trained")
        layer = f"lora_unet_{match[1].replace('.', '_')}"
        found[f"{layer}.lora_{match[2]}.weight"] = value
        found[f"{layer}.alpha"] = torch.tensor(float(alpha))
    return found


def embedding_weights(pivot: Pivot) -> dict[str, Tensor]:
    """Name a token's vectors as a file of their own has them; its stem is their word."""
    return by_encoder(pivot, "emb_params")


def bundled_weights(word: str, pivot: Pivot) -> dict[str, Tensor]:
    """Name a token's vectors as a LoRA's file has them beside the LoRA, with their word."""
    parts = by_encoder(pivot, "string_to_param.*")
    return {f"{BUNDLED}{word}.{name}": vectors for name, vectors in parts.items()}
