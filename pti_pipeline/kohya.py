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
from pti_pipeline.low_rank import MAGNITUDE
from pti_pipeline.pivot import Pivot, by_encoder
from pti_pipeline.weights import BUNDLED

OURS = re.compile(r"(unet|text_encoder|text_encoder_2)\.(.+)\.lora[._](down|up|A|B)\.weight")
"""Names in the LoRA files that this project writes: diffusers' own."""
KINDS = {"A": "down", "B": "up"}
UNNAMED = re.compile(r"(time|add)_embedding\..+")
"""Layers that sd-scripts has no names for; diffusers would pass some of them over in silence."""


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
        If a name is another, or of a layer that has none there.
    """
    found = {}
    first = "te1" if any(name.startswith("text_encoder_2.") for name in weights) else "te"
    parts = {"unet": "unet", "text_encoder": first, "text_encoder_2": "te2"}
    for name, value in weights.items():
        if name.endswith(MAGNITUDE):
            what = "this LoRA is a DoRA, which is not written under kohya's names"
            raise ModelError("E421", what, "take the form diffusers or merged")
        match = OURS.fullmatch(name)
        if match is None:
            raise ModelError("E405", f"this LoRA holds '{name}'", "give one that pti trained")
        part, inner, kind = match.groups()
        if UNNAMED.fullmatch(inner):
            what = f"this LoRA adapts {inner}, which kohya's trainers have no name for"
            raise ModelError("E421", what, "take the form diffusers")
        layer = f"lora_{parts[part]}_{inner.replace('.', '_')}"
        found[f"{layer}.lora_{KINDS.get(kind, kind)}.weight"] = value
        found[f"{layer}.alpha"] = torch.tensor(float(alpha))
    return found


def embedding_weights(pivot: Pivot) -> dict[str, Tensor]:
    """Name a token's vectors as a file of their own has them; its stem is their word."""
    return by_encoder(pivot, "emb_params")


def bundled_weights(word: str, pivot: Pivot) -> dict[str, Tensor]:
    """Name a token's vectors as a LoRA's file has them beside the LoRA, with their word."""
    parts = by_encoder(pivot, "string_to_param.*")
    return {f"{BUNDLED}{word}.{name}": vectors for name, vectors in parts.items()}
