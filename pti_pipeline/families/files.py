"""LoRA files of ours: diffusers' own, with the settings that a later step needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import convert_unet_state_dict_to_peft
from torch import Tensor

from pti_pipeline.errors import ModelError
from pti_pipeline.lora_config import OURS
from pti_pipeline.low_rank import PREFIX
from pti_pipeline.targets import ENCODER_TARGETS
from pti_pipeline.weights import OUR_KEY, read_weights, refuse_pickle, write_weights


def save_lora(
    pipeline: Any,
    parts: Sequence[str],
    state: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write a LoRA as the file that ``load_lora_weights`` of a pipeline's class reads.

    Parameters
    ----------
    pipeline : type
    parts : sequence of str
        Of the pipeline: the denoiser (``unet`` or ``transformer``), and text encoders.
    state : mapping of str to Tensor
        Under peft's names, those of text encoders behind the encoder's own.
    metadata : mapping
        Rank, alpha, target modules, and what peft does not know.
    folder : Path
    """
    own = {key: value for key, value in metadata.items() if key not in OURS}
    said: dict[str, Any] = {}
    for part, layers in _by_part(parts, state).items():
        told = own if part == parts[0] else own | {"target_modules": list(ENCODER_TARGETS)}
        named = _as_unets_are_named(layers) if part == "unet" else layers
        said |= {f"{part}_lora_layers": named, f"{part}_lora_adapter_metadata": told}
    pipeline.save_lora_weights(folder, **said)
    tensors, header = read_weights(folder / LORA_WEIGHT_NAME_SAFE)
    if ours := {key: value for key, value in metadata.items() if key in OURS}:
        header |= {OUR_KEY: json.dumps(ours)}
    write_weights(folder / LORA_WEIGHT_NAME_SAFE, tensors, header)


def load_lora(parts: Sequence[str], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_lora` wrote: peft's names, and the settings.

    Raises
    ------
    ModelError
        If the file may be a pickle, or is no LoRA of ours for such a denoiser.
    """
    refuse_pickle(path)
    try:
        tensors, written = read_weights(path)
        facts = json.loads(written["lora_adapter_metadata"])
        if odd := {key.partition(".")[0] for key in facts} - {*parts}:
            known = ", ".join(parts)
            raise ValueError(f"it is of a {min(odd)}, and this base model has a {known}")
        denoiser = f"{parts[0]}."
        own = {k.removeprefix(denoiser): v for k, v in facts.items() if k.startswith(denoiser)}
        own |= json.loads(written.get(OUR_KEY, "{}"))
        state = convert_unet_state_dict_to_peft(tensors)
    except Exception as error:
        what = f"'{path.name}' is no LoRA with its settings ({error})"
        raise ModelError("E405", what, "give one that pti trained") from error
    return {PREFIX + name.removeprefix(denoiser): value for name, value in state.items()}, own


def _by_part(parts: Sequence[str], state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Weights of each part of a pipeline, under the names that they have in it."""
    found: dict[str, dict[str, Tensor]] = {parts[0]: {}}
    for whole, tensor in state.items():
        name = whole.removeprefix(PREFIX)
        part, _, layer = name.partition(".")
        inside = part in parts[1:]
        found.setdefault(part if inside else parts[0], {})[layer if inside else name] = tensor
    return found


def _as_unets_are_named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename all layers as diffusers' ``convert_state_dict_to_diffusers`` does those of attention.

    It leaves the others with peft's names, and diffusers' loader takes a file to be as its first
    name is.
    """
    pairs = (("lora_A", "lora.down"), ("lora_B", "lora.up"))
    found = dict(state)
    for peft, diffusers in pairs:
        found = {n.replace(f".{peft}.", f".{diffusers}."): t for n, t in found.items()}
    return found
