"""Leak: whether samples stand where the training pictures stand, oftener than they should."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, norm, rankdata

Values = NDArray[np.floating]

SIGNIFICANT = 0.05
"""One-sided p-value below which a leak counts as detected."""
MARGIN = 0.55
"""AUC below which a leak counts as none: about 10 % of copies among 4 to 8 pictures."""
POWER = 0.9
"""Chance of a certificate that :func:`samples_needed` plans for."""
SETS = 199
"""Random layout sets that the training set is held against."""
MEMORISED = 1 / 3
"""Ratio of the nearest to the second nearest distance below which a sample is a memory."""


@dataclass(frozen=True)
class Verdict:
    """What the samples say of a leak.

    Attributes
    ----------
    words : str
        ``"detected"``, ``"certified free"`` or ``"not certified"``.
    auc : float
        0.5 is no leak, 1 is copying.
    upper : float
        One-sided 95 % upper bound of the AUC.
    p : float
        One-sided Mann-Whitney p-value.
    needed : int or None
        Samples on each side with which such an AUC is certified nine times in ten; None if it is
        at or above the margin, where none suffice.
    """

    words: str
    auc: float
    upper: float
    p: float
    needed: int | None


def whiten(layouts: Values, reference: Values) -> Values:
    """Express layouts (n, d) in units in which the reference's covariance is the identity."""
    covariance = np.atleast_2d(np.cov(reference.T))
    values, vectors = np.linalg.eigh(covariance)
    turned: Values = (layouts - reference.mean(0)) @ vectors / np.sqrt(values.clip(1e-12))
    return turned


def nearest(layouts: Values, training: Values) -> Values:
    """Distance of each layout (n, d) to the nearest training layout (m, d); shape (n,)."""
    closest: Values = _gaps(layouts, training).min(1)
    return closest


def auc(tuned: Values, reference: Values) -> float:
    """Chance that a tuned sample is nearer to the training layouts than a reference sample.

    0.5 is no leak, 1 is copying; ties count half (Mann & Whitney 1947).

    Parameters
    ----------
    tuned, reference : ndarray, shape (n,), (m,)
        Distances as of :func:`nearest`.
    """
    ordered = np.sort(tuned)
    nearer = [np.searchsorted(ordered, reference, side) for side in ("left", "right")]
    return float(np.sum(nearer) / (2 * len(tuned) * len(reference)))


def p_value(tuned: Values, reference: Values) -> float:
    """One-sided Mann-Whitney p-value against "not nearer than the reference"."""
    return float(mannwhitneyu(reference, tuned, alternative="greater").pvalue)


def auc_interval(
    tuned: Values,
    reference: Values,
    rng: np.random.Generator,
    draws: int = 1000,
    levels: tuple[float, float] = (0.025, 0.975),
) -> tuple[float, float]:
    """Bootstrap interval of :func:`auc`, 95 % by default; pairs of equal seed are drawn together.

    Parameters
    ----------
    tuned, reference : ndarray, shape (n,)
        Element i of both was sampled with the same seed.
    """
    n = len(tuned)
    # nearer[i, j]: sample i of tuned against sample j of the reference
    nearer = (tuned[:, None] < reference) + 0.5 * (tuned[:, None] == reference)
    rows = rng.integers(0, n, (draws, n))
    times = np.stack([np.bincount(drawn, minlength=n) for drawn in rows]).astype(np.float64)
    values = (times @ nearer * times).sum(1) / n**2
    low, high = np.quantile(values, levels)
    return float(low), float(high)


def auc_error(tuned: Values, reference: Values) -> float:
    """Standard error of :func:`auc` from pairs of equal seed, without drawing.

    Parameters
    ----------
    tuned, reference : ndarray, shape (n,)
        Element i of both was sampled with the same seed.

    Notes
    -----
    DeLong et al. 1988: the AUC is close to a mean over i of a_i + b_i, where a_i is the share of
    reference samples that tuned sample i is nearer than, and b_i the share of tuned samples nearer
    than reference sample i. What a pair shares is counted, since its two shares are added first.
    """
    n = len(tuned)
    together = rankdata(np.concatenate([tuned, reference]))
    a = 1 - (together[:n] - rankdata(tuned)) / n
    b = (together[n:] - rankdata(reference)) / n
    return float(np.std(a + b, ddof=1) / math.sqrt(n))


def certified(tuned: Values, reference: Values) -> Verdict:
    """Say whether a leak is detected, certified to be below :data:`MARGIN`, or neither.

    Parameters
    ----------
    tuned, reference : ndarray, shape (n,)
        Distances as of :func:`nearest`; element i of both was sampled with the same seed.

    Notes
    -----
    The upper bound is auc + 1.645 :func:`auc_error`. The bootstrap's 95 % quantile
    (:func:`auc_interval`) is the same within 0.004 from 64 samples on, and slower.
    """
    value, p = auc(tuned, reference), p_value(tuned, reference)
    return judge(value, auc_error(tuned, reference), p)


def judge(value: float, error: float, p: float) -> Verdict:
    """Say the same of an AUC with its standard error and p-value."""
    upper = value + float(norm.ppf(0.95)) * error
    words = "certified free" if upper < MARGIN else "not certified"
    if p < SIGNIFICANT:
        words = "detected"
    return Verdict(words, value, upper, p, samples_needed(value))


def samples_needed(value: float) -> int | None:
    """Samples on each side that certify an AUC nine times in ten; None from the margin on.

    An AUC below 0.5 counts as 0.5: it is luck. The error of n against n is 1 / sqrt(6 n)
    (Hanley & McNeil 1982, at an AUC of 0.5).
    """
    gap = MARGIN - max(value, 0.5)
    if not gap > 0:
        return None
    deviations = float(norm.ppf(0.95) + norm.ppf(POWER))
    return math.ceil((deviations / gap) ** 2 / 6)


def pooled_p(values: Sequence[float]) -> float:
    """One p-value from those of k experiments held against the same reference samples.

    Their normal scores correlate by one half, so their sum has variance k (k + 1) / 2 (Stouffer,
    with that correlation). For equal sizes this is the Mann-Whitney test on all their samples.
    """
    scores = norm.isf(np.clip(values, 1e-300, 1 - 1e-12))
    k = len(values)
    return float(norm.sf(scores.sum() / math.sqrt(k * (k + 1) / 2)))


def pooled_error(errors: Sequence[float]) -> float:
    """Return the error of the mean of k AUCs against the same reference samples.

    The reference's share of the error, taken as half of its square, does not shrink with k.
    """
    k = len(errors)
    return float(np.sqrt(np.mean(np.square(errors)) * (1 + 1 / k) / 2))


def copying_p(
    layouts: Values, training: Values, draw: Callable[[int], Values], sets: int = SETS
) -> float:
    """Chance that a set of layouts drawn at random has the samples as near as the training's.

    It tells copying from centring: samples that all stand in the middle are near to many sets, and
    no nearer to the training's than to others.

    Parameters
    ----------
    layouts : ndarray, shape (n, d)
        Of the samples.
    training : ndarray, shape (m, d)
    draw : callable
        ``draw(k)`` gives the k-th random set, shape (m, d), from what training sets are drawn
        from; whitened like the others.
    sets : int
        How many to draw.

    Returns
    -------
    float
        (1 + number of sets with T_k <= T) / (sets + 1), where T is the mean distance of the samples
        to the nearest of a set; 0.005 at least with 199.
    """
    own = nearest(layouts, training).mean()
    closer = sum(nearest(layouts, draw(k)).mean() <= own for k in range(sets))
    return float((1 + closer) / (sets + 1))


def memorised(layouts: Values, training: Values) -> float:
    """Share of samples much nearer to one training layout than to any other; lower is better.

    Parameters
    ----------
    layouts : ndarray, shape (n, d)
    training : ndarray, shape (m, d)
        At least two.

    Notes
    -----
    Nearest over second nearest distance below 1/3 (Bonnaire et al. 2025). Chance
    alone gives more than 0 in few dimensions: compare it with the reference's.
    """
    gaps = np.sort(_gaps(layouts, training), axis=1)
    return float(np.mean(gaps[:, 0] < MEMORISED * gaps[:, 1]))


def _gaps(layouts: Values, training: Values) -> Values:
    gaps: Values = np.linalg.norm(layouts[:, None] - training[None], axis=-1)
    return gaps
