"""How far LoRAs or DoRAs have travelled: norms of what they add to the weights of all layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pti_pipeline import distance, dora
from pti_pipeline.lora import Adapter

Place = Sequence[Any]
"""Where an adapter is, in float64: :data:`pti_pipeline.distance.Layers`, or a DoRA's layers."""


def place(adapter: Adapter) -> Place:
    """Where an adapter is now."""
    layers = adapter.layers.values()
    if not adapter.config.dora:
        downs, ups = [la.down.detach() for la in layers], [la.up.detach() for la in layers]
        return distance.by_shape(downs, ups)
    found = []
    for la in layers:
        down, up, magnitude = (tensor.detach() for tensor in la.trained)
        found.append(dora.measured(la.linear.weight, down, up, magnitude, la.scale))
    return found


def travelled(adapter: Adapter, now: Place) -> Tensor:
    """Frobenius norm of the change of the weights from the base's, (K,)."""
    norm: Callable[..., Tensor] = distance.lora_delta_norm
    if adapter.config.dora:
        norm = dora.delta_norm
    return norm(now, adapter.scale)


def stepped(adapter: Adapter, now: Place, before: Place) -> Tensor:
    """Frobenius norm of the change of the weights between two places, (K,)."""
    norm: Callable[..., Tensor] = distance.lora_step_norm
    if adapter.config.dora:
        norm = dora.step_norm
    return norm(now, before, adapter.scale)


def base_norm(adapter: Adapter) -> float:
    """Frobenius norm of the adapted base weights together, for relative distances."""
    return math.sqrt(
        sum(float(la.linear.weight.double().square().sum()) for la in adapter.layers.values())
    )
