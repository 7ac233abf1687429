"""Base models by family; a new family is one file here and one line in :data:`FAMILIES`."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path

import torch

from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.families.base import BaseModel

FAMILIES = {"StableDiffusionPipeline": "pti_pipeline.families.stable_diffusion"}
"""Module of each family, by the pipeline class that a model folder names."""

WORLD = Path(__file__).parents[1] / "world" / "weights"
"""The embedded model: the base named ``world``."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(base: str, device: str = "auto", precision: str = "fp32") -> BaseModel:
    """Load a base model, frozen.

    Parameters
    ----------
    base : str
        ``world`` (the embedded one), a folder, a ``.safetensors`` file or a hub id.
    device : str
        ``auto`` (the first of cuda, mps, cpu at hand), or one of these.
    precision : str
        ``fp32``, ``bf16`` or ``fp16``, of the frozen weights; what is trained stays fp32.

    Raises
    ------
    ModelError
        If there is no such model or its family is unknown.
    UsageError
        If the device is not at hand.
    """
    source = str(WORLD) if base == "world" else base
    index = Path(source) / "model_index.json"
    if os.path.isfile(index):  # unlike Path, it takes any text
        family = _family(index, base)
    elif os.path.isdir(source):
        raise ModelError("E401", f"no model in '{base}'", "give a folder with a model_index.json")
    else:
        family = "StableDiffusionPipeline"
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelError("E406", f"'{base}' is a {family}", f"families known: {known}")
    module = import_module(FAMILIES[family])
    model: BaseModel = module.load(source, base, choose_device(device), PRECISIONS[precision])
    return model


def _family(index: Path, base: str) -> str:
    """Name of the pipeline class in a model folder's index."""
    try:
        return str(json.loads(index.read_text("utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"can't read the model_index.json of '{base}' ({error!r})"
        raise ModelError("E401", what, "give a folder that diffusers saved") from error


def choose_device(name: str) -> torch.device:
    """Turn ``auto|cuda|mps|cpu`` into a device that is at hand."""
    at_hand = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, there in at_hand.items() if there), "cpu")
    if not at_hand.get(name, True):
        raise UsageError("E208", f"no {name} device here", "use --device auto")
    return torch.device(name)
