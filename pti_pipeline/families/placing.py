"""Which parts of a base model are on its device: with offloading those in use, the others wait.

Frozen weights never change, so a part leaves at no cost: its own copy waits on the CPU all the
time, and only that on the device is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

DENOISER, ENCODERS, T5, VAE = "denoiser", "text encoders", "T5", "VAE"
"""What comes and goes by itself."""

Parts = Mapping[str, tuple[nn.Module, ...]]


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a module has a tensor, and the tensor that waits on the CPU."""

    owner: nn.Module
    name: str
    home: Tensor


@dataclass(eq=False)
class Places:
    """Parts of a base model, and which of them are on its device.

    Attributes
    ----------
    device : torch.device
    slots : dict of str to list of Slot
        By the parts' names.
    here : set of str
        Parts that are on the device.
    learning : bool
        Whether the text encoders were last asked for with gradients: then they and the denoiser
        are one graph, and neither leaves for the other.
    """

    device: torch.device
    slots: dict[str, list[Slot]]
    here: set[str] = field(default_factory=set)
    learning: bool = False


def waiting(parts: Parts, device: torch.device) -> Places:
    """Let parts, which are on the CPU, come to a device when they are asked for."""
    return Places(device, {name: _slots(models) for name, models in parts.items()})


def bring(places: Places, name: str) -> None:
    """Have a part on the device, and beside it only what it is used together with."""
    stay = {name}
    if name == ENCODERS:
        places.learning = torch.is_grad_enabled()
    if name in (DENOISER, ENCODERS) and places.learning:
        stay = {DENOISER, ENCODERS}
    for other in places.here - stay:
        for slot in places.slots[other]:
            _put(slot, slot.home)
    places.here &= stay
    if name not in places.here:
        moved: dict[int, Tensor] = {}  # a tensor that several modules share stays one
        for slot in places.slots[name]:
            key = id(slot.home)
            moved[key] = moved[key] if key in moved else slot.home.to(places.device)
            _put(slot, moved[key])
        places.here.add(name)


def _slots(models: tuple[nn.Module, ...]) -> list[Slot]:
    modules = [module for model in models for module in model.modules()]
    return [
        Slot(module, name, tensor.detach())
        for module in modules
        for held in (module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for name, tensor in held
    ]


def _put(slot: Slot, tensor: Tensor) -> None:
    parameter = slot.name in slot.owner._parameters
    setattr(slot.owner, slot.name, nn.Parameter(tensor, False) if parameter else tensor)
