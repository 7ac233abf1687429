"""Leak: whether samples stand where the training pictures stand, oftener than they should."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

Values = NDArray[np.floating]

SIGNIFICANT = 0.05
"""One-sided p-value below which a leak counts as detected."""


def whiten(layouts: Values, reference: Values) -> Values:
    """Express layouts (n, d) in units in which the reference's covariance is the identity."""
    covariance = np.atleast_2d(np.cov(reference.T))
    values, vectors = np.linalg.eigh(covariance)
    turned: Values = (layouts - reference.mean(0)) @ vectors / np.sqrt(values.clip(1e-12))
    return turned


def nearest(layouts: Values, training: Values) -> Values:
    """Distance of each layout (n, d) to the nearest training layout (m, d); shape (n,)."""
    gaps = np.linalg.norm(layouts[:, None] - training[None], axis=-1)
    closest: Values = gaps.min(1)
    return closest


def auc(tuned: Values, reference: Values) -> float:
    """Chance that a tuned sample is nearer to the training layouts than a reference sample.

    0.5 is no leak, 1 is copying; ties count half (Mann & Whitney 1947).

    Parameters
    ----------
    tuned, reference : ndarray, shape (n,), (m,)
        Distances as of :func:`nearest`.
    """
    statistic = mannwhitneyu(reference, tuned, alternative="greater").statistic
    return float(statistic / (len(tuned) * len(reference)))


def p_value(tuned: Values, reference: Values) -> float:
    """One-sided Mann-Whitney p-value against "not nearer than the reference"."""
    return float(mannwhitneyu(reference, tuned, alternative="greater").pvalue)


def auc_interval(
    tuned: Values, reference: Values, rng: np.random.Generator, draws: int = 1000
) -> tuple[float, float]:
    """Bootstrap 95 % interval of :func:`auc`; pairs of equal seed are drawn together.

    Parameters
    ----------
    tuned, reference : ndarray, shape (n,)
        Element i of both was sampled with the same seed.
    """
    # nearer[i, j]: sample i of tuned against sample j of the reference
    nearer = (tuned[:, None] < reference) + 0.5 * (tuned[:, None] == reference)
    rows = rng.integers(0, len(tuned), (draws, len(tuned)))
    values = [nearer[np.ix_(drawn, drawn)].mean() for drawn in rows]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
