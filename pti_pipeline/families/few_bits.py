"""A frozen denoiser in 8 or 4 bits: its linear layers keep codes, and read weights of them anew.

As in QLoRA (Dettmers et al. 2023): the codes of 64 weights share a scale, their largest absolute
value; four bits tell 16 levels that are evenly likely of normal numbers (NF4). Written here since
the libraries' layers of four bits run on GPUs alone, where nothing of them could be tested.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 64
"""Weights that share a scale."""
NF4 = (
    *(-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
)
"""QLoRA's appendix E."""


@cache
def levels(bits: int) -> Tensor:
    """What codes of 4 or 8 bits stand for, ascending from -1 to 1; float32."""
    return torch.tensor(NF4) if bits == 4 else torch.linspace(-1, 1, 255)


class FewBits(nn.Linear):
    """A frozen linear layer whose weights are codes and scales.

    Parameters
    ----------
    linear : nn.Linear
        Its weights are rounded to the nearest level.
    bits : int
        4 or 8.
    """

    def __init__(self, linear: nn.Linear, bits: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bits, self.bias = bits, linear.bias
        codes, scales = encode(linear.weight.detach(), bits)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Weights that the codes stand for, (out, in); made at each use."""
        codes, scales = cast(Tensor, self.codes), cast(Tensor, self.scales)
        return decode(codes, scales, self.bits, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return cast(Tensor, _Product.apply(x, self))  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    """``x W' + b``; the backward pass makes W anew, rather than have it held."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FewBits) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.weight, None


def encode(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes, and a scale for each :data:`BLOCK` of weights; the last block is filled up with 0.

    Returns
    -------
    codes : Tensor of uint8, shape (blocks, BLOCK * bits / 8)
        Of 4 bits two in a byte.
    scales : Tensor, shape (blocks, 1), of the weight's type
    """
    flat = weight.flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).unflatten(0, (-1, BLOCK))
    scales = blocks.abs().amax(1, keepdim=True)
    shares = (blocks / scales).nan_to_num(0.0).float()  # a block of nothing but 0
    values = levels(bits).to(weight.device)
    codes = torch.bucketize(shares, (values[1:] + values[:-1]) / 2, out_int32=True).to(torch.uint8)
    if bits == 4:
        codes = codes[:, ::2] | codes[:, 1::2] << 4
    return codes, scales


def decode(codes: Tensor, scales: Tensor, bits: int, shape: tuple[int, int]) -> Tensor:
    """Weights that :func:`encode` wrote, of the scales' type."""
    if bits == 4:
        codes = torch.stack([codes & 15, codes >> 4], -1).flatten(1)
    values = levels(bits).to(scales)[codes.int()] * scales
    return values.flatten()[: shape[0] * shape[1]].view(shape)


def shrink(denoiser: nn.Module, bits: int) -> None:
    """Put :class:`FewBits` in the places of a denoiser's linear layers."""
    for parent in [*denoiser.modules()]:
        for name, child in [*parent.named_children()]:
            if type(child) is nn.Linear:
                setattr(parent, name, FewBits(child, bits))
