"""Other answers to where a curve bends or passes a value; they are reported, one rule decides."""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression

from pti_pipeline.curves import Values


def isotonic(x: Values, y: Values, rising: bool, weights: Values | None = None) -> Values:
    """Return the monotone values nearest to y (pool adjacent violators), in the order of x.

    Returns
    -------
    ndarray, shape (n,)
        At ``np.sort(x)``.
    """
    order = np.argsort(x, kind="stable")
    w = None if weights is None else weights[order]
    fitted: Values = isotonic_regression(y[order], weights=w, increasing=rising).x
    return fitted


def isotonic_crossing(x: Values, y: Values, value: float, rising: bool) -> float | None:
    """First x at which the isotonic fit, joined by lines, passes ``value``; None if it doesn't."""
    places, fitted = np.sort(x), isotonic(x, y, rising)
    past = fitted >= value if rising else fitted <= value
    if past[0] or not past.any():
        return None
    i = int(np.argmax(past))
    share = (value - fitted[i - 1]) / (fitted[i] - fitted[i - 1])
    return float(places[i - 1] + share * (places[i] - places[i - 1]))


def kneedle(x: Values, y: Values) -> float:
    """Return the x of Kneedle's knee of a rising curve (Satopaa et al. 2011), one of the points.

    It is where y, scaled to the unit square, is highest above the diagonal.
    """
    order = np.argsort(x)
    across = (x[order] - x.min()) / max(float(np.ptp(x)), 1e-12)
    up = (y[order] - y.min()) / max(float(np.ptp(y)), 1e-12)
    return float(x[order][np.argmax(up - across)])


def breakpoint(x: Values, y: Values) -> float:
    """Return the x at which two joined lines fit best, by least squares over a fine grid."""
    places = np.linspace(x.min(), x.max(), 101)[1:-1]
    losses = []
    for place in places:
        lines = np.stack([np.ones_like(x), x, np.maximum(x - place, 0)], 1)
        solved = np.linalg.lstsq(lines, y, rcond=None)[0]
        losses.append(float(((lines @ solved - y) ** 2).sum()))
    return float(places[np.argmin(losses)])
