"""Curves through what a sweep measured, against x = log10 of the distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit, logit

Values = NDArray[np.floating]

REACH = 0.5
"""Decades beyond the measured range in which a midpoint may lie."""
OVERSHOOT = 1.5
"""Largest height of a curve, in heights of the data: how far a plateau may be guessed."""
NARROW = 0.25
"""Smallest width of a curve, in gaps between distances: a step has its middle in its gap."""
GRID = 40, 12
"""Midpoints and widths from which the best start is taken."""


@dataclass(frozen=True)
class Curve:
    """A logistic in x, or a level.

    value(x) = start + (plateau - start) / (1 + exp(-(x - midpoint) / width))

    Attributes
    ----------
    start, plateau : float
        Values far on the left and far on the right; equal of a flat curve.
    midpoint, width : float
        In decades; NaN of a flat curve.
    low, high : float
        Measured range of x.
    residual : float
        Root of the weighted mean of the squared residuals.
    """

    start: float
    plateau: float
    midpoint: float
    width: float
    low: float
    high: float
    residual: float

    @property
    def flat(self) -> bool:
        """Whether the points show no change."""
        return self.start == self.plateau

    def __call__(self, x: ArrayLike) -> Values:
        """Return the fitted values at x."""
        places = np.asarray(x, dtype=np.float64)
        if self.flat:
            return np.full(places.shape, self.start)
        share: Values = expit((places - self.midpoint) / self.width)
        return self.start + (self.plateau - self.start) * share

    def solve(self, value: float) -> float:
        """Return the x at which the curve passes ``value``, measured or not.

        Infinite where it never does: ``-inf`` if it is past the value everywhere, else ``inf``.
        """
        if self.flat:
            return math.inf
        share = (value - self.start) / (self.plateau - self.start)
        if 0 < share < 1:
            return float(self.midpoint + self.width * logit(share))
        return -math.inf if share <= 0 else math.inf

    def crossing(self, value: float) -> float | None:
        """Return the x at which the curve passes ``value``; None if not in the measured range."""
        x = self.solve(value)
        return x if self.low <= x <= self.high else None


def fit(
    x: Values,
    y: Values,
    start: float,
    rising: bool,
    weights: Values | None = None,
    noise: float = 0.0,
) -> Curve:
    """Fit a logistic or a level, whichever the points support.

    Parameters
    ----------
    x, y : ndarray, shape (n,), n >= 3
        In any order; several points may share an x.
    start : float
        Value at distance zero, which is known: the reference's.
    rising : bool
        Whether y can only rise, or only fall.
    weights : ndarray, shape (n,), optional
        Inverse variances, up to a factor.
    noise : float
        Standard deviation that the points have at least. Without it three points that differ at
        all are a curve.

    Returns
    -------
    Curve
        Of a level, a logistic from ``start`` (three parameters) and one with a start of its own
        (four), that with the lowest Bayesian information criterion (Schwarz 1978).

    Raises
    ------
    ValueError
        If there are fewer than three points, or one is not finite.
    """
    if len(x) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a curve needs three finite points")
    w = np.ones(len(x)) if weights is None else weights / weights.mean()
    level = float(np.average(y, weights=w))
    best = _curve(x, y, w, (level, 0.0, math.nan, math.nan))
    lowest = _criterion(best, len(x), 1, noise)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return best
    for free in (False, True):
        parameters = 4 if free else 3
        if len(x) < parameters + free:
            continue
        curve = _logistic(x, y, w, start, rising, free)
        criterion = _criterion(curve, len(x), parameters, noise)
        if criterion < lowest:
            best, lowest = curve, criterion
    return best


def _criterion(curve: Curve, n: int, parameters: int, noise: float) -> float:
    spread = max(curve.residual**2 + noise**2, 1e-24)
    return n * math.log(spread) + parameters * math.log(n)


def _curve(x: Values, y: Values, w: Values, found: tuple[float, float, float, float]) -> Curve:
    start, height, midpoint, width = found
    curve = Curve(start, start + height, midpoint, width, float(x.min()), float(x.max()), 0.0)
    residual = math.sqrt(float(np.average((curve(x) - y) ** 2, weights=w)))
    return Curve(start, start + height, midpoint, width, curve.low, curve.high, residual)


def _logistic(x: Values, y: Values, w: Values, start: float, rising: bool, free: bool) -> Curve:
    """Bounded least squares from the best of a grid."""
    sign = 1.0 if rising else -1.0
    tallest = OVERSHOOT * max(float((sign * (y - start)).max()), float(np.ptp(y)), 1e-12)
    low, high = _bounds(x)
    first, height, midpoint, width = _best_of_grid(x, y, w, start, sign * tallest, free, low, high)
    spread = float(np.ptp(y))
    bounds = [[0.0, *low], [tallest, *high]]
    guess = [sign * height, midpoint, width]
    if free:
        bounds = [[float(y.min()) - spread, *bounds[0]], [float(y.max()) + spread, *bounds[1]]]
        guess = [first, *guess]
    roots = np.sqrt(w)

    def values(p: Values) -> tuple[float, float, float, float]:
        return (float(p[0]) if free else start, sign * float(p[-3]), float(p[-2]), float(p[-1]))

    def residuals(p: Values) -> Values:
        begin, rise, middle, wide = values(p)
        gaps: Values = roots * (begin + rise * expit((x - middle) / wide) - y)
        return gaps

    def slopes(p: Values) -> Values:
        _, rise, middle, wide = values(p)
        share = expit((x - middle) / wide)
        steep = rise * share * (1 - share) / wide
        columns = [sign * share, -steep, -steep * (x - middle) / wide]
        return roots[:, None] * np.stack([np.ones_like(x)] * free + columns, 1)

    inside = np.clip(guess, bounds[0], bounds[1])
    found = least_squares(residuals, inside, slopes, bounds, xtol=1e-6, ftol=1e-8, max_nfev=60)
    return _curve(x, y, w, values(found.x))


def _bounds(x: Values) -> tuple[tuple[float, float], tuple[float, float]]:
    """Lowest and highest (midpoint, width)."""
    span = float(np.ptp(x))
    gap = span / max(len(np.unique(x.round(1))) - 1, 1)
    least = NARROW * gap
    return (x.min() - REACH, least), (x.max() + REACH, max(span / 2, 2 * least))


def _best_of_grid(
    x: Values,
    y: Values,
    w: Values,
    start: float,
    tallest: float,
    free: bool,
    low: tuple[float, float],
    high: tuple[float, float],
) -> tuple[float, float, float, float]:
    """Start, height, midpoint and width of the best curve whose last two are on a grid.

    Given these the curve is linear in the first two, which are then known in closed form.
    """
    middles = np.linspace(low[0], high[0], GRID[0])
    widths = np.geomspace(low[1], high[1], GRID[1])
    places = np.stack(np.meshgrid(middles, widths, indexing="ij"), -1).reshape(-1, 2)
    share = expit((x - places[:, :1]) / places[:, 1:])
    share_mean = share @ w / w.sum() if free else np.zeros(len(places))
    y_mean = float(np.average(y, weights=w)) if free else start
    centred = share - share_mean[:, None]
    rise = centred @ (w * (y - y_mean)) / np.maximum((centred**2) @ w, 1e-12)
    rise = np.clip(rise, min(0.0, tallest), max(0.0, tallest))
    losses = ((y_mean + rise[:, None] * centred - y) ** 2) @ w
    i = int(np.argmin(losses))
    middle, width = places[i].tolist()
    return float(y_mean - rise[i] * share_mean[i]), float(rise[i]), middle, width
