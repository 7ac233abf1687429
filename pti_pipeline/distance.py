"""The distances travelled: definitions of ``docs/reference/metrics.md``, for K experiments at once.

Every function takes tensors with a leading axis K and gives float64 of shape (K,).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]
"""Of :func:`by_shape`."""


def delta_norm(now: Tensor, start: Tensor) -> Tensor:
    """L2 norm of ``now - start``, over all axes but the first."""
    return (now.double() - start.double()).flatten(1).norm(dim=1)


def by_shape(downs: Sequence[Tensor], ups: Sequence[Tensor]) -> Layers:
    """Stack a LoRA's layers of equal shape, as float64 copies: few large products, not many small.

    Parameters
    ----------
    downs : sequence of Tensor, each (K, r, in)
        A of each layer.
    ups : sequence of Tensor, each (K, out, r)
        B of each layer.

    Returns
    -------
    list of (Tensor, Tensor)
        A and B of L layers each, of shapes (L, K, r, in) and (L, K, out, r).
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (down, up) in enumerate(zip(downs, ups, strict=True)):
        groups.setdefault((*down.shape, *up.shape), []).append(index)
    return [
        (
            torch.stack([downs[i] for i in rows]).double(),
            torch.stack([ups[i] for i in rows]).double(),
        )
        for rows in groups.values()
    ]


def lora_delta_norm(layers: Layers, scale: float) -> Tensor:
    r"""Frobenius norm of a LoRA's effective weights over all layers.

    Parameters
    ----------
    layers : list of (Tensor, Tensor)
        As of :func:`by_shape`.
    scale : float
        What B A is multiplied with.

    Notes
    -----
    .. math:: \|s B A\|_F^2 = s^2 \sum (A A^T) \odot (B^T B)

    needs two r x r Gram matrices a layer and never forms the product. The norm of (A, B) itself
    would count A's random start and change with A -> cA, B -> B/c.
    """
    squares = [((a @ a.mT) * (b.mT @ b)).sum((0, 2, 3)) for a, b in layers]
    return scale * torch.stack(squares).sum(0).clamp(min=0).sqrt()


def lora_step_norm(now: Layers, before: Layers, scale: float) -> Tensor:
    r"""Frobenius norm of the change of a LoRA's effective weights.

    Parameters
    ----------
    now, before : list of (Tensor, Tensor)
        As of :func:`by_shape`.
    scale : float
        What B A is multiplied with.

    Notes
    -----
    .. math:: B A - B' A' = B \,\delta A + \delta B\, A'

    loses no digits when the change is small; its square again takes r x r Gram matrices only.
    """
    squares = []
    for (a, b), (was_a, was_b) in zip(now, before, strict=True):
        da, db = a - was_a, b - was_b
        first = (b.mT @ b) * (da @ da.mT)
        second = (db.mT @ db) * (was_a @ was_a.mT)
        crossed = (b.mT @ db) * (da @ was_a.mT)
        squares.append((first + second + 2 * crossed).sum((0, 2, 3)))
    return scale * torch.stack(squares).sum(0).clamp(min=0).sqrt()


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


def function_gap(now: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    r"""Squared distance between two models' answers, and the squared size of the latter.

    Parameters
    ----------
    now, before : Tensor, shape (F, T, n, C, h, w)
        Answers of the tuned and of the base model to F families of prompts at T noise levels.

    Returns
    -------
    moved, size : Tensor, shape (F, T), float64
        Their quotient :math:`E\|\epsilon_{tuned} - \epsilon_{base}\|^2 / E\|\epsilon_{base}\|^2` is
        the distance in the space of functions: 0 for the same function.
    """
    gap = now.double() - before.double()
    return gap.square().flatten(2).sum(2), before.double().square().flatten(2).sum(2)


def report(travelled: Tensor, path: Tensor, lr_x_steps: Tensor) -> dict[str, Tensor]:
    """Distances that every training logs, by their logged names."""
    return {
        "distance/lr_x_steps": lr_x_steps.double(),
        "distance/delta_norm": travelled,
        "distance/path": path,
    }


def derived(
    travelled: Tensor, path: Tensor, lr_x_steps: Tensor, parameters: int
) -> dict[str, Tensor]:
    """What follows from the distances of :func:`report`, by their logged names."""
    return {
        "distance/log10": travelled.log10(),
        "distance/straightness": travelled / path,
        "distance/efficiency": efficiency(travelled, lr_x_steps, parameters),
    }
