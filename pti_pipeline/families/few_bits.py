"""A frozen denoiser in 8 or 4 bits: its linear layers keep codes, and read weights of them anew.

As in QLoRA (Dettmers et al. 2023), 64 weights share a scale, their largest absolute value; four
bits tell 16 levels that are evenly likely of normal numbers (NF4), eight 255 even ones.
bitsandbytes, an extra, writes and reads the codes. Its own layers are not used: that of 8 bits
rounds what passes through it too, and in neither is ``weight`` what the codes stand for, which
distances and DoRA ask for.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pti_pipeline.errors import UsageError, reason

BLOCK = 64
"""Weights that share a scale."""
WRONG = 0.2
"""Error that rounding to 16 levels between -1 and 1 can't make; the widest are 0.3 apart."""


def check(bits: int, device: torch.device) -> None:
    """Raise ``UsageError`` unless bitsandbytes reads on a device what it wrote on the CPU."""
    if find_spec("bitsandbytes") is None:
        hint = "run pip install 'pti-pipeline[bitsandbytes]'"
        raise UsageError("E264", "a base in few bits needs bitsandbytes", hint)
    if device.type == "meta":
        return
    weight = torch.linspace(-1, 1, 64 * 96).view(64, 96)
    try:
        codes, scales = encode(weight, bits)
        read = decode(codes.to(device), scales.to(device), bits, (64, 96))
        error = read.cpu() - weight
        why = "" if error.abs().max() < WRONG else "it reads other numbers than it wrote"
    except Exception as failure:  # whatever a library makes of a device that it does not know
        why = reason(failure)
    if why:
        what = f"bitsandbytes can't be used on {device.type} ({why})"
        raise UsageError("E264", what, "install it for this device, or leave --base-bits at 16")


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


@cache
def levels(bits: int, device: torch.device) -> Tensor:
    """What codes of 4 or 8 bits stand for, from -1 to 1; float32."""
    import bitsandbytes.functional as bnb

    made: Tensor = bnb.get_4bit_type("nf4", "cpu") if bits == 4 else bnb.create_linear_map()
    return made.to(device)


def encode(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes, and a scale for each :data:`BLOCK` of weights.

    Returns
    -------
    codes : Tensor of uint8
        One a weight; of 4 bits two in a byte, shape (bytes, 1).
    scales : Tensor, shape (blocks,), of the weight's type
        Nothing is lost by that: each is the size of a weight.
    """
    import bitsandbytes.functional as bnb

    if bits == 4:
        codes, state = bnb.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    else:
        code = levels(bits, weight.device)
        codes, state = bnb.quantize_blockwise(weight, code, blocksize=BLOCK)
    return codes, state.absmax.to(weight.dtype)


def decode(codes: Tensor, scales: Tensor, bits: int, shape: tuple[int, int]) -> Tensor:
    """Weights that :func:`encode` wrote, of the scales' type.

    They are read as one row: of several, which are no multiple of a block, bitsandbytes 0.50 reads
    scales of other blocks on CPUs with AVX-512.
    """
    import bitsandbytes.functional as bnb

    code = levels(bits, codes.device)
    how = {"code": code, "blocksize": BLOCK, "quant_type": "nf4", "dtype": scales.dtype}
    state = bnb.QuantState(scales.float(), shape=(1, shape[0] * shape[1]), **how)
    read = bnb.dequantize_4bit if bits == 4 else bnb.dequantize_blockwise
    return cast(Tensor, read(codes, state)).view(shape)


def shrink(denoiser: nn.Module, bits: int) -> None:
    """Put :class:`FewBits` in the places of a denoiser's linear layers."""
    for parent in [*denoiser.modules()]:
        for name, child in [*parent.named_children()]:
            if type(child) is nn.Linear:
                setattr(parent, name, FewBits(child, bits))
