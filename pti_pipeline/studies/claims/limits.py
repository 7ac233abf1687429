"""Where a sweep of tunings starts to leak, and what it is worth there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pti_pipeline import leak
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.curves import (
    distances,
    ends,
    nearness,
    obedience,
    training_positions,
)
from pti_pipeline.studies.claims.prompts import KINDS

Values = NDArray[np.floating]


@dataclass(frozen=True)
class Limit:
    """A sweep at the learning rate at which its leak reaches the bound.

    Attributes
    ----------
    lr, distance : float
        Interpolated in their logarithms; an end of the sweep where the bound is not crossed.
    appearance, editability : float
        Shares, 0 to 1; interpolated.
    leak : float
        AUC against the class word; interpolated.
    drift : float
        Distance between functions on prompts of other subjects; interpolated.
    hypervolume : float
        Of all runs' appearance, editability and 1 - leak, over (0, 0, 0).
    censored : int
        0 where the bound is crossed within the sweep. Else ``lr`` and ``distance`` are its end: -1
        if its first run leaks already, 1 if none does.
    """

    lr: float
    distance: float
    appearance: float
    editability: float
    leak: float
    drift: float
    hypervolume: float
    censored: int


@dataclass(frozen=True)
class Swept:
    """Runs of a sweep that did not diverge, by increasing learning rate; each array is (n,).

    Attributes
    ----------
    lr, distance : ndarray
    appearance, editability : ndarray
        Shares, 0 to 1.
    leak, class_leak : ndarray
        AUC against the pivot's samples, and against the class word's.
    drift : ndarray
        Distance between functions on prompts of other subjects.
    """

    lr: Values
    distance: Values
    appearance: Values
    editability: Values
    leak: Values
    class_leak: Values
    drift: Values


def swept_of(cell: Cell, result: Result) -> Swept:
    """Read what each run of a sweep shows."""
    runs = sorted(ends(result), key=lambda run: run["lr"])
    samples, last = [run["samples"] for run in runs], [run["probes"][-1] for run in runs]
    usual, training = result["reference"]["class"], training_positions(cell)
    pivot = nearness(result["reference"]["pivot"], usual, training)
    word = nearness(usual, usual, training)
    near = [nearness(sample, usual, training) for sample in samples]
    return Swept(
        np.array([run["lr"] for run in runs]),
        distances(last),
        np.array([sample["appearance"] for sample in samples]),
        np.array([obedience(sample, list(KINDS)) for sample in samples]),
        np.array([leak.auc(each, pivot) for each in near]),
        np.array([leak.auc(each, word) for each in near]),
        np.array([row["function_other"] for row in last]),
    )


def limit_of(cell: Cell, result: Result) -> Limit:
    """Find a sweep's limit: the first crossing of the bound, since beyond collapse leaks shrink."""
    runs = swept_of(cell, result)
    if not len(runs.lr):
        nan = math.nan
        return Limit(nan, nan, nan, nan, nan, nan, hypervolume=0.0, censored=-1)
    rates, aucs = np.log10(runs.lr), runs.leak
    at = crossing(rates, aucs, leak.MARGIN)
    free = 1 - 2 * np.clip(aucs - 0.5, 0, 0.5)

    def there(values: Values) -> float:
        return float(np.interp(at, rates, values))

    return Limit(
        lr=10**at,
        distance=10 ** there(np.log10(runs.distance)),
        appearance=there(runs.appearance),
        editability=there(runs.editability),
        leak=there(runs.class_leak),
        drift=there(runs.drift),
        hypervolume=hypervolume(np.stack([runs.appearance, runs.editability, free], 1)),
        censored=int((aucs < leak.MARGIN).all()) - int(aucs[0] >= leak.MARGIN),
    )


def appearance_at(cell: Cell, result: Result, leaked: float) -> float:
    """Appearance of a sweep where it first leaks as much as asked.

    Parameters
    ----------
    cell, result : Cell, dict
        The sweep.
    leaked : float
        AUC against the class word.

    Returns
    -------
    float
        Interpolated in the logarithm of the learning rate; NaN if the first run leaks more, or none
        as much.
    """
    runs = swept_of(cell, result)
    if not runs.class_leak[0] <= leaked <= runs.class_leak.max():
        return math.nan
    rates = np.log10(runs.lr)
    return float(np.interp(crossing(rates, runs.class_leak, leaked), rates, runs.appearance))


def class_leak(cell: Cell, result: Result, sample: Result) -> float:
    """AUC of a sample's leak against the class word on the base model."""
    usual, training = result["reference"]["class"], training_positions(cell)
    return leak.auc(nearness(sample, usual, training), nearness(usual, usual, training))


def crossing(x: Values, y: Values, bound: float) -> float:
    """First x at which y reaches a bound, interpolated; an end of x where it never does.

    Examples
    --------
    >>> crossing(np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.5, 0.7]), 0.6)
    1.5
    """
    above = np.flatnonzero(y >= bound)
    if not len(above):
        return float(x[-1])
    i = int(above[0])
    if i == 0:
        return float(x[0])
    share = (bound - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


def hypervolume(points: Values) -> float:
    """Volume of the boxes from the origin to any of n points in the unit cube (n, 3), together.

    Examples
    --------
    >>> hypervolume(np.array([[1.0, 0.5, 1.0], [0.5, 1.0, 1.0]]))
    0.75
    """
    edges = [np.unique(np.concatenate([[0.0], points[:, i]])) for i in range(3)]
    corners = np.stack(np.meshgrid(*(e[1:] for e in edges), indexing="ij"), -1)
    covered = (points[:, None, None, None] >= corners).all(-1).any(0)
    sizes = np.einsum("i,j,k->ijk", *(np.diff(e) for e in edges))
    return float(sizes[covered].sum())
