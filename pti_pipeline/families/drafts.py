"""A base model without its weights: its shapes, by its configuration, on the meta device.

On another device its weights are random: for what depends on shapes alone, such as speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import diffusers
import torch
import transformers
from diffusers import SchedulerMixin
from torch import nn
from transformers import CLIPTokenizer

from pti_pipeline.errors import ModelError, UsageError, reason
from pti_pipeline.families import PRECISIONS, WORLD, few_bits, module_of
from pti_pipeline.families.base import BaseModel
from pti_pipeline.families.recognise import OPTIONAL, read_index
from pti_pipeline.weights import SUFFIX

META = torch.device("meta")
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
"""That parts are of."""
UNREAD = "text_encoder_3"
"""T5: a text encoder of no placeholders, which a draft keeps beside its model."""
ENDS = {"<|startoftext|>": 0, "<|endoftext|>": 1}
"""What a draft's tokenizers know: the words of a prompt change no shape."""


@dataclass(frozen=True)
class Draft:
    """A base model of shapes.

    Attributes
    ----------
    base : BaseModel
        Answers as the model would, in tensors without numbers, or whose numbers mean nothing.
    vae : nn.Module
        Of the base.
    t5 : nn.Module or None
        Not asked by ``base``: in its place it takes zeros of the same shape.
    """

    base: BaseModel
    vae: nn.Module
    t5: nn.Module | None


def draft(
    base: str,
    precision: str = "fp32",
    bits: int = 16,
    device: torch.device = META,
    offload: bool = False,
    tokenizer: CLIPTokenizer | None = None,
) -> Draft:
    """Build a base model's parts by their configurations; no weight is read.

    Parameters
    ----------
    base : str
        ``world``, a folder or a hub id.
    precision, bits, offload
        As of :func:`pti_pipeline.families.load`.
    device : torch.device
        Of weights that are drawn at random, but for the meta device.
    tokenizer : CLIPTokenizer, optional
        Which knows words; by default one to which all prompts are alike.

    Raises
    ------
    UsageError
        If it is a single file: such hold weights, and no configuration; or as of ``load``.
    ModelError
        If there is no such model, or a configuration can't be used.
    """
    if base.endswith(SUFFIX):
        hint = "give a folder or a hub id of a model of these shapes"
        raise UsageError("E209", f"'{base}' has no configuration", hint)
    if bits < 16:
        few_bits.check(bits, device)
    source = str(WORLD) if base == "world" else base
    index = read_index(source, base)
    module = module_of(str(index["_class_name"]), base)
    dtype, waits = PRECISIONS[precision], offload and device != META
    try:
        taken = {name: _part(source, name, kind, dtype, device) for name, kind in index.items()}
        if waits:  # each is drawn where that is quick
            taken = {n: p.to("cpu") if isinstance(p, nn.Module) else p for n, p in taken.items()}
        t5 = taken.pop(UNREAD, None)
        tokenizer = tokenizer or CLIPTokenizer(
            vocab=ENDS,
            merges=[],
            model_max_length=taken["text_encoder"].config.max_position_embeddings,
        )
        asked = signature(module.PIPELINE).parameters
        given = dict.fromkeys(name for name, each in asked.items() if each.default is each.empty)
        given |= {name: part for name, part in taken.items() if name in asked} | module.OPTIONS
        given |= {name: tokenizer for name in ("tokenizer", "tokenizer_2") if name in asked}
        vae: nn.Module = taken["vae"]
        model = module.MODEL(module.PIPELINE(**given), base, device, dtype, offload, bits)
        return Draft(model, vae, t5)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever libraries make of a configuration
        what = f"can't use the configuration of '{base}' ({reason(error)})"
        raise ModelError("E401", what, "give a folder that diffusers saved, or a hub id") from error


def _part(source: str, name: str, kind: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A part that an index names: a model on a device, a scheduler, or a setting itself."""
    if not isinstance(kind, list):
        return kind
    library, named = kind
    if library not in LIBRARIES or name in OPTIONAL or "okenizer" in named:
        return None
    made = getattr(LIBRARIES[library], named)
    place = {"subfolder": name, "local_files_only": os.path.isdir(source)}
    if issubclass(made, SchedulerMixin):
        return made.from_config(made.load_config(source, **place))
    with device, _default(dtype):
        if library == "diffusers":
            model = made.from_config(made.load_config(source, **place))
        else:
            config, _ = made.config_class.get_config_dict(source, **place)
            model = made(made.config_class.from_dict(config))
    return model.to(dtype)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Make tensors of a type meanwhile: weights drawn in float32 would take twice the memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
