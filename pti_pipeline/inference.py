"""Onsets, exponents and intervals: what curves over several subjects and seeds say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]

DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


def resampled(sizes: Sequence[int], rng: np.random.Generator) -> Values:
    """Draw a bootstrap of subjects, then of seeds.

    Parameters
    ----------
    sizes : sequence of int
        Seeds of each subject, n in all.

    Returns
    -------
    ndarray, shape (DRAWS, n)
        Share that each value has in the mean over subjects of each draw.
    """
    ends = np.cumsum(sizes)
    shares = np.zeros((DRAWS, ends[-1]))
    for row in shares:
        for i in rng.integers(0, len(sizes), len(sizes)):
            taken = ends[i] - sizes[i] + rng.integers(0, sizes[i], sizes[i])
            np.add.at(row, taken, 1 / (len(sizes) * sizes[i]))
    return shares


def mean_over_subjects(groups: Mapping[str, Sequence[float]], shares: Values) -> Estimate:
    """Mean over subjects of their means over seeds, with its interval.

    Parameters
    ----------
    groups : mapping of str to sequence of float
        Values of each subject's seeds, n in all.
    shares : ndarray, shape (draws, n)
        Those of :func:`resampled`.
    """
    means = shares @ np.concatenate([*groups.values()])
    low, high = np.quantile(means, [0.025, 0.975])
    middle = np.mean([np.mean(values) for values in groups.values()])
    return Estimate(float(middle), float(low), float(high))


def onset(distances: Values, gains: Values, share: float) -> float:
    """Distance at which a gain first reaches a share of its largest; interpolated in the logarithm.

    Parameters
    ----------
    distances, gains : ndarray, shape (n,)
        By increasing distance.
    share : float
        Between 0 and 1.

    Returns
    -------
    float
        NaN if the gain is never above 0, the first distance if it is there from the start.

    Examples
    --------
    >>> round(onset(np.array([1.0, 10.0, 100.0]), np.array([0.0, 0.1, 1.0]), 0.05), 3)
    3.162
    """
    top = gains.max()
    return reaching(distances, gains, share * top) if top > 0 else float("nan")


def reaching(distances: Values, gains: Values, level: float) -> float:
    """Distance at which a gain first reaches a level; NaN if never. As in :func:`onset`."""
    if not (gains >= level).any():
        return float("nan")
    first = int(np.argmax(gains >= level))
    if first == 0:
        return float(distances[0])
    x0, x1 = np.log10(distances[first - 1 : first + 1])
    y0, y1 = gains[first - 1 : first + 1]
    return float(10 ** (x0 + (x1 - x0) * (level - y0) / (y1 - y0)))


def exponents(logs: Values, outcome: Values) -> Values:
    """Slopes of log outcome in each column of ``logs`` (n, d), by least squares; shape (d,)."""
    design = np.column_stack([logs, np.ones(len(logs))])
    slopes: Values = np.linalg.lstsq(design, outcome, rcond=None)[0][:-1]
    return slopes
