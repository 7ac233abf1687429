"""Several trained LoRAs on one base at once, each with a weight of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pti_pipeline.errors import ModelError
from pti_pipeline.lora import NONE
from pti_pipeline.lora_config import Config
from pti_pipeline.low_rank import (
    HINT,
    PREFIX,
    PackedLoRA,
    asked_timesteps,
    locate,
    replace_layer,
    trained,
    trained_magnitude,
    usable_ranks,
)

DOWN = ".lora_A.weight"


@dataclass(frozen=True)
class LoRA:
    """A trained LoRA, as :meth:`pti_pipeline.families.base.BaseModel.load_lora` reads it.

    Attributes
    ----------
    state : mapping of str to Tensor
        Under peft's names.
    config : mapping
        See :meth:`pti_pipeline.lora_config.Config.read`.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @property
    def made(self) -> Config:
        """How it was made."""
        return Config.read(self.config)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that it adapts."""
        names = [n for n in self.state if n.startswith(PREFIX) and n.endswith(DOWN)]
        return [name.removeprefix(PREFIX).removesuffix(DOWN) for name in names]


@contextmanager
def blended(
    denoiser: nn.Module,
    loras: Sequence[LoRA],
    weights: Sequence[float],
    encoders: Mapping[str, nn.Module] = NONE,
) -> Iterator[None]:
    r"""Let a denoiser and text encoders answer with a weighted sum of LoRAs, for a while.

    .. math:: y = W x + \sum_i w_i s_i B_i A_i x

    with :math:`s_i` each one's own scale, as peft's ``set_scale`` and diffusers' ``set_adapters``
    weigh adapters. The sum of low-rank paths is one path whose rank is their sum, so that every
    layer takes two products however many LoRAs there are. Afterwards the very same layers are back.

    Parameters
    ----------
    denoiser : nn.Module
        Without a LoRA; left so.
    loras : sequence of LoRA
        May differ in rank and in the layers that they adapt. A DoRA is alone; its weight is that
        of its low-rank path, and not of its magnitudes.
    weights : sequence of float
        One for each; 1 is as trained, 0 is without.
    encoders : mapping of str to nn.Module, optional
        The base's text encoders, by the pipeline's names.

    Raises
    ------
    ModelError
        If the layers or shapes are not this denoiser's, or a weight is not finite.
    """
    for lora in loras:
        _check(lora)
    if len(loras) > 1 and any(lora.made.dora for lora in loras):
        raise ModelError("E405", "a DoRA does not add up with others", "draw it alone")
    sharers = {
        name: [i for i, lora in enumerate(loras) if name in lora.layers]
        for lora in loras
        for name in lora.layers
    }
    places = {name: locate(denoiser, encoders, name) for name in sharers}
    layers = {
        name: _sum(_linear(places[name], name), name, [(loras[i], weights[i]) for i in sharing])
        for name, sharing in sharers.items()
    }

    made = [lora.made for lora in loras]

    def mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        now = asked_timesteps(args, kwargs)
        usable = [usable_ranks(each.rank, each.timesteps, now) for each in made]
        for name, sharing in sharers.items():
            if places[name][0] is denoiser:
                layers[name].mask = torch.cat([usable[i] for i in sharing], 1)

    hooks = []
    if any(each.timesteps for each in made):
        hooks.append(denoiser.register_forward_pre_hook(mask, with_kwargs=True))
    for name, layer in layers.items():
        replace_layer(*places[name], layer)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, layer in layers.items():
            replace_layer(*places[name], layer.linear)


def _check(lora: LoRA) -> None:
    """Raise ``ModelError`` unless it says its scale, and holds nothing but pairs of A and B."""
    try:
        _ = lora.made
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("E405", "this LoRA does not say how it is scaled", HINT) from error
    if (2 + lora.made.dora) * len(lora.layers) != len(lora.state):
        raise ModelError("E405", "this LoRA holds more than pairs of A and B", HINT)


def _linear(place: tuple[nn.Module, str], name: str) -> nn.Linear:
    model, inner = place
    try:
        found = model.get_submodule(inner)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Linear):
        raise ModelError("E405", f"this LoRA adapts '{name}', which the base lacks", HINT)
    return found


def _sum(linear: nn.Linear, name: str, parts: Sequence[tuple[LoRA, float]]) -> PackedLoRA:
    """One layer with the paths of several LoRAs side by side, their factors in B."""
    pairs = [trained(lora.state, name, linear, lora.made.rank) for lora, _ in parts]
    down = torch.cat([a.float() for a, _ in pairs])
    scaled = [
        b.float() * (weight * lora.made.scale)
        for (_, b), (lora, weight) in zip(pairs, parts, strict=True)
    ]
    place = linear.weight.device
    if (only := parts[0][0]).made.dora:
        magnitude = trained_magnitude(only.state, name, linear).float()[None].to(place)
        return PackedLoRA(linear, down[None].to(place), scaled[0][None].to(place), 1.0, magnitude)
    return PackedLoRA(linear, down[None].to(place), torch.cat(scaled, 1)[None].to(place), 1.0)
