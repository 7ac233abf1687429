"""LoRA files made elsewhere, of diffusers, peft or kohya, on a pipeline of any family."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from torch import Tensor

from pti_pipeline.errors import ModelError
from pti_pipeline.families.base import Moved
from pti_pipeline.weights import BUNDLED, read_weights, refuse_pickle

PEFT = "base_model.model."
KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
WEIGHT = re.compile(r"([a-z_0-9]+)\.(.+)\.lora_(?:([AB])\.weight|(magnitude)_vector(?:\.weight)?)")
HINT = "give a LoRA of this base model, as diffusers, peft or kohya write it"


@contextmanager
def attached(pipeline: Any, parts: Sequence[str], path: Path) -> Iterator[Moved]:
    """Let a pipeline answer with a LoRA file's layers, for a while.

    diffusers loads and unloads; the layers that it finds afterwards are the very same.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    parts : sequence of str
        Of the pipeline, that may have a LoRA: the denoiser, and text encoders.
    path : Path

    Raises
    ------
    ModelError
        If the file is a pickle, holds what is no LoRA weight, or does not fit the base model.
    """
    state, metadata = _read(pipeline, parts, path)
    layers = _layers(pipeline, parts, path, state)
    try:
        try:
            _attach(pipeline, parts, state, metadata)
        except Exception as error:  # peft raises anything on settings that it does not know
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ModelError("E411", f"can't attach '{path.name}' ({reason})", HINT) from error
        for part in parts:
            getattr(pipeline, part).requires_grad_(False)
        yield _moved(pipeline, path, layers)
    finally:
        pipeline.unload_lora_weights()


def _attach(
    pipeline: Any,
    parts: Sequence[str],
    state: Mapping[str, Tensor],
    metadata: dict[str, Any] | None,
) -> None:
    options = {"network_alphas": None, "metadata": metadata, "_pipeline": pipeline}
    for part in parts:
        if not any(name.startswith(f"{part}.") for name in state):
            continue
        module = getattr(pipeline, part)
        if part == parts[0]:
            module.load_lora_adapter(dict(state), prefix=part, **options)
        else:
            pipeline.load_lora_into_text_encoder(
                dict(state), text_encoder=module, prefix=part, **options
            )


def _read(
    pipeline: Any, parts: Sequence[str], path: Path
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Weights under peft's names behind the parts' own, and peft's settings."""
    refuse_pickle(path)
    try:
        tensors, header = read_weights(path)
        facts = json.loads(header.get("lora_adapter_metadata", "null"))
        if not isinstance(facts, dict | None):
            raise ValueError("settings that are none")
    except Exception as error:
        raise ModelError("E411", f"can't read '{path.name}' ({error})", HINT) from error
    state = {name: t for name, t in tensors.items() if not name.startswith(BUNDLED)}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ModelError("E403", f"'{name}' in '{path.name}' is not finite", "train again")
    try:
        if any(name.startswith(KOHYA) for name in state):
            return _from_kohya(pipeline, parts, path, state), None
        if any(name.startswith(PEFT) for name in state):
            return _from_peft(parts, path, state)
        return _in_peft_names(pipeline, parts, state), facts
    except ModelError:
        raise
    except Exception as error:  # whatever diffusers makes of names that it does not know
        raise ModelError("E411", f"'{path.name}' holds odd names ({error})", HINT) from error


def _from_kohya(
    pipeline: Any, parts: Sequence[str], path: Path, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Convert kohya's names by diffusers' rules; alpha / rank goes into the weights."""
    if parts[0] != "unet":
        what = f"'{path.name}' has kohya's names of a UNet, and this base model has a {parts[0]}"
        raise ModelError("E411", what, "give it as diffusers or peft write it")
    scaled = {name: value for name, value in state.items() if not name.endswith(".alpha")}
    for name, up in scaled.items():
        layer, _, kind = name.partition(".")
        alpha = state.get(f"{layer}.alpha")
        if kind == "lora_up.weight" and alpha is not None:
            scaled[name] = up * (alpha.float() / up.shape[1]).to(up.dtype)
    try:
        converted, _ = pipeline.lora_state_dict(scaled, unet_config=pipeline.unet.config)
    except KeyError as error:
        raise ModelError("E411", f"'{path.name}' lacks {error}", HINT) from error
    except ValueError as error:
        known = ("lora_up.weight", "lora_down.weight")
        name = next((n for n in scaled if not n.endswith(known)), "")
        what = f"'{path.name}' holds '{name}', which is no weight of a LoRA"
        raise ModelError("E411", what, HINT) from error
    return _in_peft_names(pipeline, parts, converted)


def _from_peft(
    parts: Sequence[str], path: Path, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert the file that peft's ``save_pretrained`` writes, with the settings beside it."""
    beside = path.with_name("adapter_config.json")
    try:
        facts = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError) as error:
        hint = "put the adapter_config.json that peft wrote beside it"
        raise ModelError("E411", f"'{path.name}' lacks its settings ({error})", hint) from error
    part = "text_encoder" if any(".self_attn." in name for name in state) else parts[0]
    named = {f"{part}.{name.removeprefix(PEFT)}": value for name, value in state.items()}
    return named, {f"{part}.{name}": value for name, value in facts.items()}


def _in_peft_names(
    pipeline: Any, parts: Sequence[str], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Rename weights of diffusers' older layouts.

    Text encoders mix two of them in one file, and diffusers' own loader (0.42) then drops the
    attention's weights in silence: so each layout is converted by itself.
    """
    text = {n: v for n, v in state.items() if n.partition(".")[0] in parts[1:]}
    mixed: list[dict[str, Tensor]] = [{}, {}]
    for name, value in text.items():
        part, _, layer = name.partition(".")
        inside = "text_model." if hasattr(getattr(pipeline, part), "text_model") else ""
        whole = f"{part}.{inside}{layer.removeprefix('text_model.')}"
        mixed["lora_linear_layer" in name][whole] = value
    renamed = convert_unet_state_dict_to_peft({n: v for n, v in state.items() if n not in text})
    for layout in mixed:
        done = any(".lora_A." in name for name in layout)
        renamed |= layout if done or not layout else convert_state_dict_to_peft(layout)
    return dict(renamed)


def _layers(
    pipeline: Any, parts: Sequence[str], path: Path, state: Mapping[str, Tensor]
) -> list[str]:
    """Check every weight against the base's layers; return the layers' names."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        match = WEIGHT.fullmatch(name)
        if match is None:
            what = f"'{path.name}' holds '{name}', which is no weight of a LoRA"
            raise ModelError("E411", what, HINT)
        found.setdefault(f"{match[1]}.{match[2]}", {})[match[3] or match[4]] = value
    if not found:
        raise ModelError("E411", f"'{path.name}' holds no weights", HINT)
    if others := {name.partition(".")[0] for name in found} - {*parts}:
        what = f"'{path.name}' is of a {min(others)}, and this base model has {', '.join(parts)}"
        raise ModelError("E411", what, HINT)
    for name, pair in found.items():
        part, _, layer = name.partition(".")
        try:
            weight = getattr(pipeline, part).get_submodule(layer).weight
        except AttributeError:
            raise _misfit(path, name) from None
        magnitude = pair.pop("magnitude", None)
        fits = magnitude is None or (weight.ndim == 2 and magnitude.shape == weight.shape[:1])
        if set(pair) != {"A", "B"} or weight.ndim not in (2, 4) or not fits:
            raise _misfit(path, name)
        rank = len(pair["A"])
        down, up = (rank, *weight.shape[1:]), (len(weight), rank, *[1] * (weight.ndim - 2))
        if pair["A"].shape != down or pair["B"].shape != up:
            raise _misfit(path, name)
    return list(found)


def _misfit(path: Path, layer: str) -> ModelError:
    return ModelError("E411", f"'{path.name}' does not fit the base model at '{layer}'", HINT)


def _moved(pipeline: Any, path: Path, layers: list[str]) -> Moved:
    moved = weights = 0.0
    for name in layers:
        part, _, layer = name.partition(".")
        module = getattr(pipeline, part).get_submodule(layer)
        if not hasattr(module, "get_delta_weight"):
            raise _misfit(path, name)
        (adapter,) = module.active_adapters
        base = module.get_base_layer().weight.double()
        delta = module.get_delta_weight(adapter).double()
        if adapter in module.lora_magnitude_vector:
            turned = (base + delta) / (base + delta).norm(dim=1, keepdim=True)
            delta = module.lora_magnitude_vector[adapter].weight.double()[:, None] * turned - base
        moved += float(delta.square().sum())
        weights += float(base.square().sum())
    return Moved(moved**0.5, weights**0.5)
