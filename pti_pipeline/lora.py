"""LoRA (Hu et al. 2021) of K experiments on one frozen denoiser, and on its text encoders.

peft decides which layers are adapted (:mod:`pti_pipeline.targets`) and how the weights are named
and saved; the layers are our own (:mod:`pti_pipeline.low_rank`), since peft's compute one adapter
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pti_pipeline.dora import norms
from pti_pipeline.errors import ModelError
from pti_pipeline.lora_config import Config
from pti_pipeline.low_rank import (
    HINT,
    MAGNITUDE,
    PREFIX,
    PackedLoRA,
    asked_timesteps,
    locate,
    named,
    replace_layer,
    trained,
    trained_magnitude,
    usable_ranks,
)
from pti_pipeline.randomness import generator
from pti_pipeline.targets import ENCODER_TARGETS, adapted

NONE: Mapping[str, nn.Module] = MappingProxyType({})
"""No text encoders."""


@dataclass(frozen=True)
class Adapter:
    """The LoRAs of K experiments, attached to a denoiser and, perhaps, to text encoders.

    Attributes
    ----------
    denoiser : nn.Module
    layers : dict of str to PackedLoRA
        By the name of the linear layer that each stands before; see
        :func:`pti_pipeline.low_rank.locate`.
    config : Config
    encoders : mapping of str to nn.Module
        Text encoders that have a LoRA too, by the pipeline's names.
    hooks : list
        What else is attached to the denoiser; see :func:`rank_by_timestep`.
    """

    denoiser: nn.Module
    layers: dict[str, PackedLoRA]
    config: Config
    encoders: Mapping[str, nn.Module] = field(default_factory=dict)
    hooks: list[RemovableHandle] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """Of every layer: what B A is multiplied with."""
        return self.config.scale

    @property
    def parameters(self) -> list[Tensor]:
        """Every trainable tensor, each with a leading axis K, layer by layer."""
        return [tensor for layer in self.layers.values() for tensor in layer.trained]


def attach(
    denoiser: nn.Module,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    seeds: Sequence[int],
    rslora: bool = False,
    encoders: Mapping[str, nn.Module] = NONE,
    dora: bool = False,
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
    rslora : bool
        Scale it by alpha / sqrt(r).
    encoders : mapping of str to nn.Module, optional
        Text encoders whose attention gets a LoRA too, by the pipeline's names; frozen.
    dora : bool
        Give each row of the weights a magnitude; it starts as the row's norm.

    Raises
    ------
    UsageError
        If no layer matches, or one that is not linear.
    """
    config = Config(rank, alpha, tuple(targets), rslora, dora)
    linears = adapted(denoiser, targets)
    for part, encoder in encoders.items():
        found = adapted(encoder, ENCODER_TARGETS)
        linears |= {named(part, name): linear for name, linear in found.items()}
    layers = {}
    for index, (name, linear) in enumerate(linears.items()):
        shape, place = (rank, linear.in_features), linear.weight.device
        drawn = [torch.randn(shape, generator=generator(s, "lora", index)) / rank for s in seeds]
        up = torch.zeros(len(seeds), linear.out_features, rank, device=place)
        down = torch.stack(drawn).to(place)
        magnitude = norms(linear.weight.to(down.dtype), down, up, 0.0) if dora else None
        layers[name] = PackedLoRA(linear, down, up, config.scale, magnitude)
        replace_layer(*locate(denoiser, encoders, name), layers[name])
    return Adapter(denoiser, layers, config, encoders)


def detach(adapter: Adapter) -> None:
    """Put the very same linear layers back: the base's output is what it was, bit for bit."""
    for hook in adapter.hooks:
        hook.remove()
    for name, layer in adapter.layers.items():
        replace_layer(*locate(adapter.denoiser, adapter.encoders, name), layer.linear)


def rank_by_timestep(adapter: Adapter, timesteps: int) -> None:
    r"""Let noisier rows use fewer ranks, in training and in sampling, until it is detached.

    The rank at timestep t of T is :math:`\lfloor (r - r_{min}) (T - t) / T \rfloor + r_{min}`
    with :math:`r_{min} = \lceil r / 2 \rceil` (T-LoRA, Soboleva et al. 2025, eq. 6). Text encoders
    know no timestep, and use all.
    """
    if adapter.hooks:
        return  # it is there already, for another pivot
    own = [
        layer for n, layer in adapter.layers.items() if n.partition(".")[0] not in adapter.encoders
    ]

    def mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        usable = usable_ranks(adapter.config.rank, timesteps, asked_timesteps(args, kwargs))
        for layer in own:
            layer.mask = usable

    adapter.hooks.append(adapter.denoiser.register_forward_pre_hook(mask, with_kwargs=True))


@contextmanager
def disabled(adapter: Adapter) -> Iterator[None]:
    """Let the denoiser and the text encoders answer as the base model's, for a while."""
    before = [layer.enabled for layer in adapter.layers.values()]
    for layer in adapter.layers.values():
        layer.enabled = False
    try:
        yield
    finally:
        for layer, enabled in zip(adapter.layers.values(), before, strict=True):
            layer.enabled = enabled


@contextmanager
def only(adapter: Adapter, part: slice) -> Iterator[None]:
    """Let rows be those of the experiments in ``part``, for a while."""
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
        if layer.magnitude is not None:
            magnitude = layer.magnitude[experiment]
            state[f"{PREFIX}{name}.{MAGNITUDE}"] = magnitude.detach().cpu().clone()
    return state


def attach_states(
    denoiser: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    config: Mapping[str, object],
    encoders: Mapping[str, nn.Module] = NONE,
) -> Adapter:
    """Attach trained LoRAs of equal rank, one for each experiment.

    Parameters
    ----------
    denoiser : nn.Module
    states : sequence of mapping
        As of :func:`peft_state`.
    config : mapping
        See :meth:`pti_pipeline.lora_config.Config.read`; with timesteps, :func:`rank_by_timestep`
        is used.
    encoders : mapping of str to nn.Module, optional
        The base's text encoders, by the pipeline's names; those that the states name get theirs.

    Raises
    ------
    ModelError
        If the layers or shapes are not this base's, or a weight is not finite.
    """
    read, first = Config.read(config), states[0]
    parts = {name.removeprefix(PREFIX).partition(".")[0] for name in first}
    tuned = {part: encoder for part, encoder in encoders.items() if part in parts}
    made = read.rank, read.alpha, read.targets, [0] * len(states), read.rslora, tuned, read.dora
    adapter = attach(denoiser, *made)
    try:
        if len(first) != len(adapter.parameters):
            raise ModelError("E405", "this LoRA holds other layers than it says", HINT)
        for name, layer in adapter.layers.items():
            for k, state in enumerate(states):
                down, up = trained(state, name, layer.linear, read.rank)
                layer.down[k].copy_(down)
                layer.up[k].copy_(up)
                if layer.magnitude is not None:
                    layer.magnitude[k].copy_(trained_magnitude(state, name, layer.linear))
    except ModelError:
        detach(adapter)
        raise
    if read.timesteps:
        rank_by_timestep(adapter, read.timesteps)
    return adapter
