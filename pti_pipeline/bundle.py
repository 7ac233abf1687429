"""A character's files, and pictures drawn from them: base model + learned token + LoRA.

A bundle is a folder with ``bundle.json``, ``learned_embeds.safetensors`` and, unless the character
is a pivot alone, ``pytorch_lora_weights.safetensors``: what the registry holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pti_pipeline import lora
from pti_pipeline.characters import Characters, draw
from pti_pipeline.errors import ModelError
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.pivot import Pivot, load_pivot
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings

LORA_FILE = "pytorch_lora_weights.safetensors"
PIVOT_FILE = "learned_embeds.safetensors"
BUNDLE_FILE = "bundle.json"


@dataclass(frozen=True)
class Bundle:
    """A character ready to be drawn.

    Attributes
    ----------
    base : BaseModel
        With the LoRA attached, if there is one.
    pivot : Pivot
    """

    base: BaseModel
    pivot: Pivot


def load_bundle(
    folder: Path, base: str | None = None, device: str = "auto", precision: str = "fp32"
) -> Bundle:
    """Load a bundle onto its base model.

    Parameters
    ----------
    folder : Path
    base : str, optional
        Where the base model is on this machine; the one named in the bundle by default.
    device, precision : str
        See :func:`pti_pipeline.families.load`.

    Raises
    ------
    ModelError
        If the base at hand is not the one that the character was trained on.
    """
    facts = json.loads((folder / BUNDLE_FILE).read_text(encoding="utf-8"))
    model = load(base or facts["base"], device, precision)
    if model.fingerprint != facts["base_fingerprint"]:
        raise ModelError(
            "E404",
            f"base model '{base or facts['base']}' is not the one this character was trained on",
            "name the folder of the right base with --base",
        )
    if (folder / LORA_FILE).is_file():
        state, config = model.load_lora(folder / LORA_FILE)
        lora.attach_states(model.denoiser, [state], config)
    return Bundle(model, load_pivot(folder / PIVOT_FILE))


def draw_bundle(
    bundle: Bundle, prompts: Sequence[str], seeds: Sequence[int], how: SampleSettings
) -> NDArray[np.uint8]:
    """Draw prompt i with seed i; ``{}`` stands for the token. Shape (n, H, W, 3), uint8."""
    who = Characters(bundle.pivot.token, bundle.pivot.embedding[None])
    return to_uint8(draw(bundle.base, who, prompts, seeds, how)[0])
