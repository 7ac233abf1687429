"""LoRA files of ours: diffusers' own, with the settings that a later step needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from torch import Tensor

from pti_pipeline.errors import ModelError
from pti_pipeline.lora import OURS
from pti_pipeline.low_rank import PREFIX
from pti_pipeline.weights import OUR_KEY, read_weights, refuse_pickle, write_weights


def save_lora(
    pipeline: Any,
    part: str,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write a LoRA as the file that ``load_lora_weights`` of a pipeline's class reads.

    Parameters
    ----------
    pipeline : type
    part : str
        Of the pipeline: ``unet`` or ``transformer``.
    state : mapping of str to Tensor
        Under peft's names.
    metadata : mapping
        Rank, alpha, target modules, and what peft does not know.
    folder : Path
    """
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    known = {key: value for key, value in metadata.items() if key not in OURS}
    layers = convert_state_dict_to_diffusers(plain) if part == "unet" else plain
    pipeline.save_lora_weights(
        folder, **{f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": known}
    )
    tensors, header = read_weights(folder / LORA_WEIGHT_NAME_SAFE)
    if ours := {key: value for key, value in metadata.items() if key in OURS}:
        header |= {OUR_KEY: json.dumps(ours)}
    write_weights(folder / LORA_WEIGHT_NAME_SAFE, tensors, header)


def load_lora(part: str, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_lora` wrote: peft's names, and the settings.

    Raises
    ------
    ModelError
        If the file may be a pickle, or is no LoRA of ours for such a part.
    """
    refuse_pickle(path)
    try:
        tensors, written = read_weights(path)
        facts = json.loads(written["lora_adapter_metadata"])
        if not all(key.startswith(f"{part}.") for key in facts):
            found = next(iter(facts)).partition(".")[0]
            raise ValueError(f"it is of a {found}, and this base model has a {part}")
        own = {key.removeprefix(f"{part}."): value for key, value in facts.items()}
        own |= json.loads(written.get(OUR_KEY, "{}"))
        state = convert_unet_state_dict_to_peft(tensors)
    except Exception as error:
        what = f"'{path.name}' is no LoRA with its settings ({error})"
        raise ModelError("E405", what, "give one that pti trained") from error
    return {PREFIX + name.removeprefix(f"{part}."): value for name, value in state.items()}, own
