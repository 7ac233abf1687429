"""The layer of a LoRA, and how one takes a linear layer's place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pti_pipeline import dora
from pti_pipeline.errors import ModelError

HINT = "use the base model that it was trained on"
MAGNITUDE = "lora_magnitude_vector"
"""What peft calls a DoRA's magnitude."""
PREFIX = "base_model.model."
"""What peft's names of weights begin with."""


class PackedLoRA(nn.Module):
    """A frozen linear layer plus K low-rank updates, ``y_k = W x_k + scale B_k A_k x_k``.

    Parameters
    ----------
    linear : nn.Linear
        Computed once on all rows.
    down : Tensor, shape (K, r, in)
    up : Tensor, shape (K, out, r)
    scale : float
    magnitude : Tensor, shape (K, out), optional
        Of a DoRA: norms that the rows of the updated weights have.
    """

    def __init__(
        self,
        linear: nn.Linear,
        down: Tensor,
        up: Tensor,
        scale: float,
        magnitude: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.linear, self.scale, self.enabled = linear, scale, True
        self.part = slice(None)
        self.mask: Tensor | None = None
        self.down, self.up, self.magnitude = down, up, magnitude

    def forward(self, x: Tensor) -> Tensor:
        """Map (K b, ..., in) to (K b, ..., out); rows are experiment-major, K those of ``part``.

        Where ``mask`` (K b or 1, r) is False, a row is without that rank.
        """
        y: Tensor = self.linear(x)
        if not self.enabled:
            return y
        down, up = self.down[self.part].to(x.dtype), self.up[self.part].to(x.dtype)
        hidden = torch.bmm(x.reshape(len(down), -1, x.shape[-1]), down.mT)
        if self.mask is not None:
            rows = hidden.reshape(len(x), -1, hidden.shape[-1])
            hidden = (rows * self.mask[:, None]).reshape(hidden.shape)
        base = y.reshape(len(up), -1, y.shape[-1])
        if self.magnitude is not None:
            moved = torch.bmm(hidden, up.mT)
            return self._scaled(base, moved, self.magnitude[self.part]).reshape(y.shape)
        return torch.baddbmm(base, hidden, up.mT, alpha=self.scale).reshape(y.shape)

    @property
    def trained(self) -> list[Tensor]:
        """What is trained of it, each with a leading axis K."""
        return [t for t in (self.down, self.up, self.magnitude) if t is not None]

    def change(self, experiment: int) -> Tensor:
        """What one experiment's update adds to the weights, (out, in)."""
        down, up = self.down[experiment], self.up[experiment]
        if self.magnitude is None:
            return self.scale * (up @ down)
        weight = self.linear.weight.to(down.dtype)
        return dora.change(weight, down, up, self.magnitude[experiment], self.scale)

    def _scaled(self, base: Tensor, moved: Tensor, magnitude: Tensor) -> Tensor:
        """Answers with each row of the weights at its magnitude.

        Their norms count as constants in the backward pass (section 4.3 of the paper).
        """
        down, up = self.down[self.part].detach(), self.up[self.part].detach()
        lengths = dora.norms(self.linear.weight.to(down.dtype), down, up, self.scale)
        share = (magnitude / lengths).to(base.dtype)[:, None]
        plain = base if self.linear.bias is None else base - self.linear.bias
        return base + (share - 1) * plain + share * self.scale * moved


def locate(
    denoiser: nn.Module, encoders: Mapping[str, nn.Module], layer: str
) -> tuple[nn.Module, str]:
    """Model that a LoRA's layer is of, and the layer's name in it.

    Layers of text encoders are named behind their encoder's own name, and as those of encoders
    whose transformer is in a ``text_model``: transformers 5.6 took that out of CLIP's.
    """
    part, _, name = layer.partition(".")
    if part not in encoders:
        return denoiser, layer
    whole = hasattr(encoders[part], "text_model")
    return encoders[part], name if whole else name.removeprefix("text_model.")


def named(encoder: str, layer: str) -> str:
    """Name of a text encoder's layer as :func:`locate` knows it."""
    return f"{encoder}.text_model.{layer.removeprefix('text_model.')}"


def experiments(models: Iterable[nn.Module]) -> int:
    """How many experiments' rows models take; 1 without LoRAs that answer."""
    layers = (m for model in models for m in model.modules() if isinstance(m, PackedLoRA))
    return max((len(la.down[la.part]) for la in layers if la.enabled), default=1)


def replace_layer(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` where ``root`` has a layer of this name."""
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)


def trained(
    state: Mapping[str, Tensor], name: str, linear: nn.Linear, rank: int
) -> tuple[Tensor, Tensor]:
    """A and B of one layer of a trained LoRA, under peft's names; else raise ``ModelError``."""
    shapes = (rank, linear.in_features), (linear.out_features, rank)
    down, up = (state.get(f"{PREFIX}{name}.lora_{part}.weight") for part in "AB")
    if down is None or up is None or (down.shape, up.shape) != shapes:
        raise ModelError("E405", f"this LoRA does not fit layer '{name}'", HINT)
    if not (down.isfinite().all() and up.isfinite().all()):
        raise ModelError("E403", "this LoRA is not finite", "tune at a lower rate")
    return down, up


def trained_magnitude(state: Mapping[str, Tensor], name: str, linear: nn.Linear) -> Tensor:
    """Magnitude (out,) of one layer of a trained DoRA; else raise ``ModelError``."""
    found = state.get(f"{PREFIX}{name}.{MAGNITUDE}")
    if found is None or found.shape != (linear.out_features,):
        raise ModelError("E405", f"this LoRA does not fit layer '{name}'", HINT)
    if not found.isfinite().all():
        raise ModelError("E403", "this LoRA is not finite", "tune at a lower rate")
    return found


def usable_ranks(rank: int, timesteps: int, now: Tensor) -> Tensor:
    """Which ranks rows at timesteps ``now`` (n,) may use, (n, rank); all if ``timesteps`` is 0."""
    if not timesteps:
        return torch.ones(len(now), rank, dtype=torch.bool, device=now.device)
    least = -(-rank // 2)
    usable = (rank - least) * (timesteps - now[:, None]) // timesteps + least
    return torch.arange(rank, device=usable.device) < usable


def asked_timesteps(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Timesteps that a denoiser is called with, (n,) or (1,)."""
    return torch.as_tensor(kwargs["timestep"] if "timestep" in kwargs else args[1]).reshape(-1)
