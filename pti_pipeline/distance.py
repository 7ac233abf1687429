"""The distances travelled: definitions of ``docs/reference/metrics.md``, for K experiments at once.

Every function takes tensors with a leading axis K and gives float64 of shape (K,).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def delta_norm(now: Tensor, start: Tensor) -> Tensor:
    """L2 norm of ``now - start``, over all axes but the first."""
    return (now.double() - start.double()).flatten(1).norm(dim=1)


def lora_delta_norm(downs: Sequence[Tensor], ups: Sequence[Tensor], scale: float) -> Tensor:
    r"""Frobenius norm of a LoRA's effective weights over all layers.

    Parameters
    ----------
    downs : sequence of Tensor, each (K, r, in)
        A of each layer.
    ups : sequence of Tensor, each (K, out, r)
        B of each layer.
    scale : float
        alpha / r.

    Notes
    -----
    .. math:: \|s B A\|_F^2 = s^2 \sum (A A^T) \odot (B^T B)

    needs two r x r Gram matrices a layer and never forms the product. The norm of (A, B) itself
    would count A's random start and change with A -> cA, B -> B/c.
    """
    squares = []
    for down, up in zip(downs, ups, strict=True):
        a, b = down.double(), up.double()
        squares.append(((a @ a.mT) * (b.mT @ b)).sum((1, 2)))
    return scale * torch.stack(squares).sum(0).clamp(min=0).sqrt()


def lora_step_norm(
    downs: Sequence[Tensor],
    ups: Sequence[Tensor],
    before_downs: Sequence[Tensor],
    before_ups: Sequence[Tensor],
    scale: float,
) -> Tensor:
    """Frobenius norm of the change of a LoRA's effective weights: B A - B' A' = [B B'] [A; -A']."""
    pairs = [torch.cat([now, -then], 1) for now, then in zip(downs, before_downs, strict=True)]
    sides = [torch.cat([now, then], 2) for now, then in zip(ups, before_ups, strict=True)]
    return lora_delta_norm(pairs, sides, scale)


def angle(now: Tensor, start: Tensor) -> Tensor:
    """Angle between ``now`` and ``start`` in degrees, 0 to 180."""
    a, b = now.double().flatten(1), start.double().flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return cosine.clamp(-1, 1).arccos().rad2deg()


def norm_ratio(vectors: Tensor, table: Tensor) -> Tensor:
    """Largest norm of (K, n, H) vectors over the median norm of the vocabulary's rows."""
    return vectors.double().norm(dim=2).amax(1) / table.double().norm(dim=1).median()


def efficiency(travelled: Tensor, lr_x_steps: Tensor, parameters: int) -> Tensor:
    """Share of what Adam could have travelled at most: 1 straight ahead, 1/sqrt(steps) at random.

    The net displacement is ``efficiency * sqrt(parameters) * lr * steps``, so that lr x steps
    alone is only an upper bound.
    """
    return travelled / (parameters**0.5 * lr_x_steps.double())


def report(
    travelled: Tensor, path: Tensor, lr_x_steps: Tensor, parameters: int
) -> dict[str, Tensor]:
    """Distances that every training logs at every step, by their logged names."""
    return {
        "distance/lr_x_steps": lr_x_steps.double(),
        "distance/delta_norm": travelled,
        "distance/log10": travelled.log10(),
        "distance/path": path,
        "distance/straightness": travelled / path,
        "distance/efficiency": efficiency(travelled, lr_x_steps, parameters),
    }
