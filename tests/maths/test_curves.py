import math

import numpy as np
import pytest
from scipy.special import expit

from pti_pipeline.choosing.cross_checks import breakpoint, isotonic, isotonic_crossing, kneedle
from pti_pipeline.curves import Curve, fit

X = np.linspace(-1, 2, 9)


def logistic(x, start=0.0, plateau=0.6, midpoint=0.4, width=0.2):
    return start + (plateau - start) * expit((x - midpoint) / width)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_an_exact_logistic_is_found_again():
    curve = fit(X, logistic(X), 0.0, rising=True)
    found = curve.start, curve.plateau, curve.midpoint, curve.width
    assert found == pytest.approx((0.0, 0.6, 0.4, 0.2), abs=1e-4)
    assert curve.residual < 1e-5 and not curve.flat
    np.testing.assert_allclose(curve(X), logistic(X), atol=1e-5)


def test_a_falling_curve_and_one_with_a_start_of_its_own():
    falling = fit(X, logistic(X, 1.0, 0.3), 1.0, rising=False)
    assert (falling.start, falling.plateau) == pytest.approx((1.0, 0.3), abs=1e-3)
    raised = fit(X, logistic(X, 0.2), 0.0, rising=True)
    assert (raised.start, raised.midpoint) == pytest.approx((0.2, 0.4), abs=1e-3)


def test_order_and_repeats_do_not_matter(rng):
    x, y = np.tile(X, 3), np.tile(logistic(X), 3) + 0.02 * rng.standard_normal(27)
    order = rng.permutation(27)
    one, two = (fit(x[o], y[o], 0.0, True) for o in (np.arange(27), order))
    assert one.midpoint == pytest.approx(two.midpoint, abs=1e-4)
    assert one.residual == pytest.approx(0.02, rel=0.3)


def test_a_crossing_is_where_the_curve_passes_or_none():
    curve = Curve(0.0, 1.0, 0.5, 0.2, -1.0, 1.0, 0.0)
    place = curve.crossing(0.9)
    assert place == pytest.approx(0.5 + 0.2 * math.log(9)) and curve(place) == pytest.approx(0.9)
    assert curve.crossing(0.99) is None  # at 1.42, which was not measured
    assert curve.solve(0.99) == pytest.approx(0.5 + 0.2 * math.log(99))
    assert curve.solve(1.2) == math.inf and curve.solve(-0.1) == -math.inf
    assert curve.crossing(1.2) is None


@pytest.mark.parametrize("n", [3, 4, 5, 9, 30])
def test_noise_is_called_flat(n):
    flat = []
    for trial in range(100):
        noise = np.random.default_rng(trial).standard_normal(n)
        curve = fit(np.linspace(-1, 2, n), 1 + 0.02 * noise, 1.0, False, noise=0.02)
        flat.append(curve.flat)
    assert np.mean(flat) >= 0.95
    level = fit(np.linspace(-1, 2, n), np.full(n, 0.7), 1.0, rising=False)
    assert level.flat and level.plateau == pytest.approx(0.7)
    assert math.isnan(level.midpoint) and level.crossing(0.95) is None


@pytest.mark.parametrize("n", [3, 5, 9, 30])
def test_a_real_change_is_not_called_flat(n):
    bent = []
    for trial in range(50):
        noise = np.random.default_rng(trial).standard_normal(n)
        x = np.linspace(-1, 2, n)
        bent.append(not fit(x, logistic(x) + 0.02 * noise, 0.0, True, noise=0.02).flat)
    assert np.mean(bent) >= 0.95


def test_what_goes_the_wrong_way_is_flat():
    assert fit(X, logistic(X, 0.5, 0.2), 0.5, rising=True).flat


def test_crossings_are_repeatable_to_a_tenth_of_a_decade(rng):
    found = []
    for _ in range(60):
        curve = fit(X, logistic(X, plateau=1.0) + 0.02 * rng.standard_normal(9), 0.0, True)
        found.append(curve.solve(0.9 * curve.plateau))
    truth = 0.4 + 0.2 * math.log(9)
    assert np.std(found) < 0.1 and abs(np.mean(found) - truth) < 0.05


def test_weights_count():
    y = logistic(X)
    y[6:] = 0.2  # three points that are wrong, and said to be
    weights = np.where(np.arange(9) < 6, 1.0, 1e-6)
    trusted = fit(X, y, 0.0, True, weights)
    assert trusted(X[4]) == pytest.approx(logistic(X)[4], abs=0.01)
    assert fit(X, y, 0.0, True).residual > 5 * trusted.residual


def test_a_plateau_that_was_not_reached_is_not_invented():
    x = np.linspace(-2, 0, 6)  # the rise has only begun
    curve = fit(x, logistic(x, plateau=1.0), 0.0, rising=True)
    assert curve.crossing(0.9 * curve.plateau) is None


def test_too_few_points_or_nan_are_refused():
    for y in ([0.1, 0.2], [0.1, math.nan, 0.3]):
        with pytest.raises(ValueError, match="three finite"):
            fit(np.arange(float(len(y))), np.array(y), 0.0, True)


def test_isotonic_is_monotone_and_keeps_what_is():
    y = np.array([0.0, 0.3, 0.2, 0.5])
    x = np.array([0.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(isotonic(x, y, True), [0.0, 0.25, 0.25, 0.5])
    np.testing.assert_allclose(isotonic(x[::-1], y[::-1], True), [0.0, 0.25, 0.25, 0.5])
    np.testing.assert_allclose(isotonic(x, -y, False), [0.0, -0.25, -0.25, -0.5])
    assert isotonic_crossing(x, y, 0.375, True) == pytest.approx(2.5)
    assert isotonic_crossing(x, -y, -0.375, False) == pytest.approx(2.5)
    assert isotonic_crossing(x, y, 0.6, True) is None
    assert isotonic_crossing(x, y, -0.1, True) is None


def test_isotonic_and_logistic_agree_on_a_fine_grid():
    x = np.linspace(-1, 2, 40)
    y = logistic(x)
    curve = fit(x, y, 0.0, True)
    assert isotonic_crossing(x, y, 0.4, True) == pytest.approx(curve.solve(0.4), abs=0.01)


def test_two_lines_meet_at_the_breakpoint_and_kneedle_finds_it():
    x = np.linspace(0, 4, 9)
    y = np.minimum(x, 1.5) + 0.1 * np.maximum(x - 1.5, 0)
    assert breakpoint(x, y) == pytest.approx(1.5, abs=0.05)
    assert kneedle(x[::-1], y[::-1]) == pytest.approx(1.5)
