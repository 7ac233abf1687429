"""LoRA (Hu et al. 2021) of K experiments on one frozen denoiser.

peft decides which layers are adapted and how the weights are named and saved; the layers are our
own (:mod:`pti_pipeline.low_rank`), since peft's compute one adapter at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pti_pipeline import distance
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.low_rank import (
    PREFIX,
    PackedLoRA,
    asked_timesteps,
    replace_layer,
    trained,
    usable_ranks,
)
from pti_pipeline.randomness import generator

OURS = ("timestep_rank",)
"""Settings of a LoRA that peft does not know."""


@dataclass(frozen=True)
class Adapter:
    """The LoRAs of K experiments, attached to a denoiser.

    Attributes
    ----------
    denoiser : nn.Module
    layers : dict of str to PackedLoRA
        By the name of the linear layer that each stands before.
    config : LoraConfig
        peft's, as saved with the weights.
    hooks : list
        What else is attached to the denoiser; see :func:`rank_by_timestep`.
    """

    denoiser: nn.Module
    layers: dict[str, PackedLoRA]
    config: LoraConfig
    hooks: list[RemovableHandle] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """Of every layer: alpha / r."""
        return next(iter(self.layers.values())).scale

    @property
    def parameters(self) -> list[Tensor]:
        """Every trainable tensor, each with a leading axis K: downs and ups, layer by layer."""
        return [tensor for layer in self.layers.values() for tensor in (layer.down, layer.up)]


def effective(adapter: Adapter) -> distance.Layers:
    """Copies of the LoRAs' layers, as their distances are taken of."""
    layers = adapter.layers.values()
    return distance.by_shape([la.down.detach() for la in layers], [la.up.detach() for la in layers])


def adapted(denoiser: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Linear layers of a denoiser that peft would adapt, by name; else raise ``UsageError``."""
    config = LoraConfig(target_modules=list(targets))
    linears = {
        name: module
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear) and check_target_module_exists(config, name)
    }
    if not linears:
        what = f"no layer of the denoiser ends in {', '.join(targets)}"
        raise UsageError("E207", what, "use another base model")
    return linears


def check_rank(denoiser: nn.Module, rank: int, targets: Sequence[str]) -> None:
    """Raise ``UsageError`` if no layer has as many ranks: a LoRA would hold more than the layer."""
    sides = [min(la.in_features, la.out_features) for la in adapted(denoiser, targets).values()]
    if rank > max(sides):
        hint = f"use at most {max(sides)}, the side of this base model's largest layers"
        raise UsageError("E202", f"rank is {rank}", hint)


def attach(
    denoiser: nn.Module, rank: int, alpha: float, targets: Sequence[str], seeds: Sequence[int]
) -> Adapter:
    """Put one new LoRA for each seed before the target layers of ``denoiser``.

    ``A`` is normal with spread 1/r and ``B`` is zero, as diffusers' trainers start
    (``init_lora_weights="gaussian"``), so that the base's output is unchanged at first.

    Parameters
    ----------
    denoiser : nn.Module
        Frozen.
    rank : int
        Inner dimension r.
    alpha : float
        The update is scaled by alpha / r.
    targets : sequence of str
        Endings of the layers' names, matched by peft.
    seeds : sequence of int
        One for each experiment; equal seeds start equal.

    Raises
    ------
    UsageError
        If no layer matches.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))
    layers = {}
    for index, (name, linear) in enumerate(adapted(denoiser, targets).items()):
        shape, place = (rank, linear.in_features), linear.weight.device
        drawn = [torch.randn(shape, generator=generator(s, "lora", index)) / rank for s in seeds]
        up = torch.zeros(len(seeds), linear.out_features, rank, device=place)
        layers[name] = PackedLoRA(linear, torch.stack(drawn).to(place), up, alpha / rank)
        replace_layer(denoiser, name, layers[name])
    return Adapter(denoiser, layers, config)


def detach(adapter: Adapter) -> None:
    """Put the very same linear layers back: the base's output is what it was, bit for bit."""
    for hook in adapter.hooks:
        hook.remove()
    for name, layer in adapter.layers.items():
        replace_layer(adapter.denoiser, name, layer.linear)


def rank_by_timestep(adapter: Adapter, timesteps: int) -> None:
    r"""Let noisier rows use fewer ranks, in training and in sampling, until it is detached.

    The rank at timestep t of T is :math:`\lfloor (r - r_{min}) (T - t) / T \rfloor + r_{min}`
    with :math:`r_{min} = \lceil r / 2 \rceil` (T-LoRA, Soboleva et al. 2025, eq. 6).
    """
    if adapter.hooks:
        return  # it is there already, for another pivot

    def mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        usable = usable_ranks(adapter.config.r, timesteps, asked_timesteps(args, kwargs))
        for layer in adapter.layers.values():
            layer.mask = usable

    adapter.hooks.append(adapter.denoiser.register_forward_pre_hook(mask, with_kwargs=True))


@contextmanager
def disabled(adapter: Adapter) -> Iterator[None]:
    """Let the denoiser answer as the base model, for a while."""
    for layer in adapter.layers.values():
        layer.enabled = False
    try:
        yield
    finally:
        for layer in adapter.layers.values():
            layer.enabled = True


@contextmanager
def only(adapter: Adapter, part: slice) -> Iterator[None]:
    """Let the denoiser's rows be those of the experiments in ``part``, for a while."""
    for layer in adapter.layers.values():
        layer.part = part
    try:
        yield
    finally:
        for layer in adapter.layers.values():
            layer.part = slice(None)


def peft_state(adapter: Adapter, experiment: int) -> dict[str, Tensor]:
    """LoRA of one experiment under peft's names."""
    state = {}
    for name, layer in adapter.layers.items():
        state[f"{PREFIX}{name}.lora_A.weight"] = layer.down[experiment].detach().cpu().clone()
        state[f"{PREFIX}{name}.lora_B.weight"] = layer.up[experiment].detach().cpu().clone()
    return state


def attach_states(
    denoiser: nn.Module, states: Sequence[Mapping[str, Tensor]], config: Mapping[str, object]
) -> Adapter:
    """Attach trained LoRAs of equal rank, one for each experiment.

    Parameters
    ----------
    denoiser : nn.Module
    states : sequence of mapping
        As of :func:`peft_state`.
    config : mapping
        With ``r``, ``lora_alpha`` and ``target_modules``; ``timestep_rank`` is the number of
        timesteps if :func:`rank_by_timestep` was used, else 0 or absent.

    Raises
    ------
    ModelError
        If the layers or shapes are not this denoiser's, or a weight is not finite.
    """
    rank, alpha = int(str(config["r"])), float(str(config["lora_alpha"]))
    targets = [str(t) for t in config["target_modules"]]  # type: ignore[attr-defined]
    adapter = attach(denoiser, rank, alpha, targets, [0] * len(states))
    try:
        for name, layer in adapter.layers.items():
            for k, state in enumerate(states):
                down, up = trained(state, name, layer.linear, rank)
                layer.down[k].copy_(down)
                layer.up[k].copy_(up)
    except ModelError:
        detach(adapter)
        raise
    if timesteps := int(str(config.get("timestep_rank", 0))):
        rank_by_timestep(adapter, timesteps)
    return adapter


def base_norm(adapter: Adapter) -> float:
    """Frobenius norm of the adapted base weights together, for relative distances."""
    return math.sqrt(
        sum(float(la.linear.weight.double().square().sum()) for la in adapter.layers.values())
    )
