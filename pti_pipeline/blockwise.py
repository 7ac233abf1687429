"""Numbers in eight bits, block by block (Dettmers et al. 2022): what Adam remembers, in a quarter.

Written here since no library's optimizer can serve a pack: those of bitsandbytes and torchao have
one learning rate for a group of parameters, and know nothing of experiments that are frozen. Nor
can their rounding be borrowed: that of bitsandbytes 0.50 on a CPU reads 0 back as 2e-5 of the
block's largest, and Adam divides such means by the roots of squares that may be as small.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 256
"""Numbers that share a scale, as in bitsandbytes and torchao."""
DECADES = 7
"""Powers of ten between a block's largest number and its smallest that are told from 0."""


@cache
def dynamic_map(signed: bool) -> Tensor:
    """The 256 values that a code stands for, ascending, within -1 to 1 or 0 to 1; float32.

    Dynamic tree quantization (Dettmers 2016): each decade below 1 is divided evenly, and twice as
    finely as the next smaller one.
    """
    values = [0.0, 1.0]
    for decade in range(DECADES):
        count = 2 ** (decade if signed else decade + 1)
        edges = torch.linspace(0.1, 1, count + 1)
        middles = (10.0 ** (decade - DECADES + 1) * (edges[:-1] + edges[1:]) / 2).tolist()
        values += middles + [-m for m in middles if signed]
    return torch.tensor(sorted(values))


def quantize(numbers: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Write (K, P) numbers as the nearest codes and a scale for each block.

    Of numbers without a sign only 0 itself becomes 0: a step over its root would have no bound (Li
    et al. 2023).

    Parameters
    ----------
    numbers : Tensor, shape (K, P)
        Not negative unless ``signed``. A block is of one row alone; the last is filled up with 0.
    signed : bool

    Returns
    -------
    codes : Tensor of uint8, shape (K, blocks, BLOCK)
    scales : Tensor, shape (K, blocks)
        Largest absolute value of each block.
    """
    blocks = pad(numbers, (0, -numbers.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(2)
    values = dynamic_map(signed).to(numbers)
    shares = (blocks / scales[..., None]).nan_to_num(0.0)  # a block of nothing but 0
    codes = torch.bucketize(shares, (values[1:] + values[:-1]) / 2, right=True)
    if not signed:
        codes = codes.where(blocks == 0, codes.clamp(min=1))
    return codes.to(torch.uint8), scales


def dequantize(codes: Tensor, scales: Tensor, signed: bool, count: int) -> Tensor:
    """Read ``count`` numbers a row of what :func:`quantize` wrote, (K, count)."""
    values = dynamic_map(signed).to(scales)[codes.long()] * scales[..., None]
    return values.flatten(1)[:, :count]
