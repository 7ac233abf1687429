r"""DoRA (Liu et al. 2024): a LoRA that turns each row of the weights, and a number that scales it.

.. math:: w'_o = m_o \frac{w_o + s\, b_o A}{\|w_o + s\, b_o A\|}

for row o of W, of K experiments at once; B A is never formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """What distances are taken of, in float64.

    Attributes
    ----------
    down, up : Tensor, shape (K, r, in) and (K, out, r)
    share : Tensor, shape (K, out)
        Magnitude over norm: what rows are multiplied with.
    crossed : Tensor, shape (K, out, r)
        W A^T.
    squares : Tensor, shape (out,)
        Squared norms of W's rows.
    """

    down: Tensor
    up: Tensor
    share: Tensor
    crossed: Tensor
    squares: Tensor


def norms(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Norms of the rows of W + s B A, (K, out); of W (out, in), A (K, r, in) and B (K, out, r)."""
    return _norms(weight.square().sum(1), weight @ down.mT, down, up, scale)


def change(weight: Tensor, down: Tensor, up: Tensor, magnitude: Tensor, scale: float) -> Tensor:
    """What one experiment's DoRA adds to W: D (W + s B A) - W, shape (out, in)."""
    share = magnitude / norms(weight, down[None], up[None], scale)[0]
    return share[:, None] * (weight + scale * up @ down) - weight


def measured(weight: Tensor, down: Tensor, up: Tensor, magnitude: Tensor, scale: float) -> Layer:
    """A layer's values now, to be measured; copies."""
    w, a, b = weight.double(), down.double(), up.double()
    squares, crossed = w.square().sum(1), w @ a.mT
    share = magnitude.double() / _norms(squares, crossed, a, b, scale)
    return Layer(a, b, share, crossed, squares)


def delta_norm(layers: Sequence[Layer], scale: float) -> Tensor:
    r"""Frobenius norm of what DoRAs add to the weights, over all layers; (K,).

    Row by row, with d the share and b' = d s b:

    .. math:: \|(d - 1) w + b' A\|^2 = (d - 1)^2 \|w\|^2 + 2 (d - 1)\, b' A w + b' A A^T b'^T
    """
    squares = []
    for la in layers:
        more, up = la.share - 1, scale * la.share[..., None] * la.up
        rows = more.square() * la.squares + 2 * more * (la.crossed * up).sum(2)
        rows += ((up @ (la.down @ la.down.mT)) * up).sum(2)
        squares.append(rows.sum(1))
    return torch.stack(squares).sum(0).clamp(min=0).sqrt()


def step_norm(now: Sequence[Layer], before: Sequence[Layer], scale: float) -> Tensor:
    r"""Frobenius norm of the change of what DoRAs add to the weights; (K,).

    With b' as above and primes of before marked by 0, each row changes by

    .. math:: (d - d_0) w + b' (A - A_0) + (b' - b'_0) A_0

    which loses no digits when the change is small.
    """
    squares = []
    for la, was in zip(now, before, strict=True):
        d, a = la.share - was.share, la.down - was.down
        p = scale * la.share[..., None] * la.up
        q = p - scale * was.share[..., None] * was.up
        along = (p * (la.crossed - was.crossed) + q * was.crossed).sum(2)
        rows = d.square() * la.squares + 2 * d * along
        rows += ((p @ (a @ a.mT)) * p + (q @ (was.down @ was.down.mT)) * q).sum(2)
        rows += 2 * ((p @ (a @ was.down.mT)) * q).sum(2)
        squares.append(rows.sum(1))
    return torch.stack(squares).sum(0).clamp(min=0).sqrt()


def _norms(squares: Tensor, crossed: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    moved = 2 * scale * crossed + scale**2 * (up @ (down @ down.mT))
    least = torch.finfo(squares.dtype).tiny
    return (squares + (moved * up).sum(2)).clamp(min=least).sqrt()
