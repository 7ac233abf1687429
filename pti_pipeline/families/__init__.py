"""Base models by family; a new family is one file here and one entry in :data:`FAMILIES`.

Importing diffusers takes seconds: only what opens a model does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pti_pipeline.errors import ModelError, PtiError, UsageError, reason
from pti_pipeline.families import few_bits
from pti_pipeline.families.base import BaseModel
from pti_pipeline.settings import FORMS, KOHYAS
from pti_pipeline.weights import SUFFIX, refuse_pickles


@dataclass(frozen=True)
class Family:
    """Base models of one kind.

    Attributes
    ----------
    title : str
        As people call them.
    module : str
        With ``PIPELINE``, the ``OPTIONS`` of its loading, and ``MODEL``, which is made of it.
    files : tuple of str
        Kinds of single files, as diffusers calls them.
    learns : str
        Where a placeholder's vectors go.
    predicts : str
    exports : tuple of str
        Forms that a character on it can be exported in.
    """

    title: str
    module: str
    files: tuple[str, ...]
    learns: str
    predicts: str
    exports: tuple[str, ...] = FORMS


FAMILIES = {
    "StableDiffusionPipeline": Family(
        "Stable Diffusion 1.x and 2.x",
        "stable_diffusion",
        ("v1", "v2"),
        "CLIP",
        "noise or velocity",
    ),
    "StableDiffusionXLPipeline": Family(
        "Stable Diffusion XL",
        "stable_diffusion_xl",
        ("xl_base",),
        "both CLIP encoders",
        "noise or velocity",
    ),
    "StableDiffusion3Pipeline": Family(
        "Stable Diffusion 3 and 3.5",
        "stable_diffusion_3",
        ("sd3", "sd35_medium", "sd35_large"),
        "both CLIP encoders; T5 reads the token as text",
        "the velocity of a flow",
        tuple(form for form in FORMS if form not in KOHYAS),
    ),
}
"""By the pipeline class that a model folder names."""

WORLD = Path(__file__).parents[1] / "world" / "weights"
"""The embedded model: the base named ``world``."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(
    base: str,
    device: str = "auto",
    precision: str = "fp32",
    offload: bool = False,
    bits: int = 16,
) -> BaseModel:
    """Load a base model, frozen.

    Parameters
    ----------
    base : str
        ``world`` (the embedded one), a folder, a ``.safetensors`` file or a hub id.
    device : str
        ``auto`` (the first of cuda, mps, cpu at hand), or one of these.
    precision : str
        ``fp32``, ``bf16`` or ``fp16``, of the frozen weights; what is trained stays fp32.
    offload : bool
        Have on the device only the parts in use; the others wait on the CPU.
    bits : int
        Of the denoiser's linear layers: 8 or 4, or 16, which is as ``precision`` says.

    Raises
    ------
    ModelError
        If there is no such model or its family is unknown.
    UsageError
        If the device is not at hand, or bitsandbytes, if ``bits`` ask for it.
    """
    from pti_pipeline.families.recognise import recognise
    from pti_pipeline.families.single_file import look_into, read

    source = str(WORLD) if base == "world" else base
    kinds = {kind: name for name, family in FAMILIES.items() for kind in family.files}
    found, absent = recognise(source, base, kinds)
    module = module_of(found, base)
    place, dtype = choose_device(device), PRECISIONS[precision]
    if bits < 16:
        few_bits.check(bits, place)
    try:
        if source.endswith(SUFFIX):
            file = look_into(Path(source), base)
            pipeline = read(module.PIPELINE, file, dtype=dtype, **module.OPTIONS)
        else:
            pipeline = module.PIPELINE.from_pretrained(
                source,
                dtype=dtype,
                local_files_only=os.path.isdir(source),
                use_safetensors=True,
                trust_remote_code=False,
                **{**dict.fromkeys(absent), **module.OPTIONS},
            )
        model: BaseModel = module.MODEL(pipeline, base, place, dtype, offload, bits)
        return model
    except (PtiError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a part's file makes of the library that reads it
        if os.path.isdir(source):
            refuse_pickles(Path(source))
        hint = f"give a folder, a .safetensors file or a hub id of {FAMILIES[found].title}"
        raise ModelError(
            "E401", f"can't load the base model '{base}' ({reason(error)})", hint
        ) from error


def module_of(found: str, base: str) -> Any:
    """Module of the family that a pipeline class is of; raise ``ModelError`` if it is of none."""
    if found not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelError("E406", f"'{base}' is a {found}", f"families known: {known}")
    return import_module(f"{__name__}.{FAMILIES[found].module}")


def choose_device(name: str) -> torch.device:
    """Turn ``auto|cuda|mps|cpu`` into a device that is at hand."""
    at_hand = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, there in at_hand.items() if there), "cpu")
    if not at_hand.get(name, True):
        raise UsageError("E208", f"no {name} device here", "use --device auto")
    return torch.device(name)
