import math

import numpy as np
import pytest
from simulated_sweeps import KNEE, inversion, spread

from pti_pipeline.choosing.knee import choose_pivot
from pti_pipeline.choosing.points import Point, pool
from pti_pipeline.randomness import numpy_generator


def swept(gains, kept=None, leaks=None, lr=True):
    """Points at distances three apart, one seed."""
    kept, leaks = kept or [1.0] * len(gains), leaks or [0.5] * len(gains)
    return [
        Point(0.01 * 3.0**k, g, e, p, lr=1e-4 * 3.0**k if lr else math.nan, gain=g)
        for k, (g, e, p) in enumerate(zip(gains, kept, leaks, strict=True))
    ]


def why(choice, index):
    return dict(choice.rejected)[index]


RISE = [0.002, 0.008, 0.025, 0.038, 0.040, 0.040, 0.040]


def test_the_knee_is_where_the_curve_has_most_of_its_gain():
    points = swept(RISE)
    choice = choose_pivot(points)
    assert points[2].distance < choice.value < points[3].distance
    assert choice.index == 3 and choice.bracketed and choice.sound
    assert "no interval: one seed" in choice.reason and math.isnan(choice.low)
    assert "90% of the gain" in choice.reason
    assert set(dict(choice.rejected)) == {0, 1, 2, 4, 5, 6}
    assert why(choice, 5) == "less near to the knee"


def test_the_knee_is_found_with_an_interval_over_seeds():
    choice = choose_pivot(inversion(numpy_generator(0, "test", 0), 3, samples=10**6))
    assert math.log10(choice.value) == pytest.approx(KNEE, abs=0.15)
    assert choice.low < 10**KNEE < choice.high and choice.low < choice.value < choice.high
    assert "3 seeds" in choice.reason and len(choice.draws) == 200


def test_the_knee_is_not_beyond_lost_editability():
    kept = [1.0, 1.0, 0.97, 0.8, 0.7, 0.65, 0.65]
    points = swept(RISE, kept)
    choice = choose_pivot(points)
    assert choice.index == 2 and choice.value < points[3].distance
    assert "95% of the class word's editability" in choice.reason
    assert "editability is below 95%" in why(choice, 3)


def test_a_pivot_that_leaks_is_not_the_knee():
    points = swept(RISE, leaks=[0.5, 0.5, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
    choice = choose_pivot(points)
    assert choice.index == 1 and choice.value == pytest.approx(points[1].distance)
    assert "before a pivot leaks" in choice.reason
    assert why(choice, 4) == "leaks by itself (p = 1e-05)"
    everywhere = choose_pivot(swept(RISE, leaks=[1e-5] * 7))
    assert not everywhere.sound and "even the nearest pivots leak" in everywhere.reason


def test_collapsed_points_are_not_in_the_curve():
    kept = [1.0, 1.0, 1.0, 1.0, 1.0, 0.3, 0.2]
    points = swept([*RISE[:5], 0.3, 0.4], kept)
    choice = choose_pivot(points)
    assert choice.index == 3
    assert why(choice, 5).startswith("collapsed: editability 0.30")
    worse = swept([*RISE[:5], -0.2, -0.3])
    assert why(choose_pivot(worse), 5) == "collapsed: bank loss 20.0% above the reference's"


def test_a_gain_that_still_grows_asks_for_larger_learning_rates():
    points = swept([0.001, 0.003, 0.009, 0.025])
    choice = choose_pivot(points)
    assert choice.index == 3 and not choice.bracketed and choice.sound
    assert "no knee in this range" in choice.reason and "extend to lr 0.008" in choice.reason
    bare = choose_pivot(swept([0.001, 0.003, 0.009, 0.025], lr=False))
    assert "extend to distances about" in bare.reason


def test_a_gain_that_is_there_at_once_asks_for_smaller_learning_rates():
    choice = choose_pivot(swept([0.04, 0.0401, 0.0402, 0.0401]))
    assert choice.index == 0 and not choice.bracketed
    assert "already there" in choice.reason and "add lr 3e-05 and 1e-05" in choice.reason


def test_a_gain_cut_by_the_collapse_asks_for_points_in_between():
    points = swept([0.001, 0.003, 0.009, 0.025, -0.5])
    choice = choose_pivot(points)
    assert choice.index == 3 and "before the collapse; add learning rates" in choice.reason


def test_two_distances_are_too_few_for_a_curve():
    points = [Point(4.0, 0.50, 1.0), Point(0.1, 0.10, 1.0)]
    choice = choose_pivot(points)
    assert choice.index == 0 and "too few points for a curve" in choice.reason
    assert choose_pivot([Point(0.1, 0.2, 1.0), Point(1.0, 0.5, 0.8)]).index == 0
    assert choose_pivot([Point(0.1, 0.2, 1.0, 0.5), Point(1.0, 0.5, 1.0, 0.001)]).index == 0
    assert choose_pivot([Point(0.1, 0.46, 1.0), Point(1.0, 0.5, 1.0)]).index == 0


def test_all_collapsed_is_an_error():
    with pytest.raises(ValueError, match="collapsed"):
        choose_pivot([Point(1.0, 0.5, 0.1), Point(2.0, math.nan, 1.0)])


def test_a_seed_that_diverges_leaves_the_others():
    points = inversion(numpy_generator(3, "test", 0), 3, samples=10**6)
    ill = Point(7.0, math.nan, seed=2, lr=points[-1].lr, diverged=True)
    choice = choose_pivot([*points[:-1], ill])
    assert choice.bracketed and math.log10(choice.value) == pytest.approx(KNEE, abs=0.2)
    assert why(choice, len(points) - 1) == "diverged"


def test_without_a_reader_the_gain_alone_decides():
    choice = choose_pivot([Point(p.distance, p.reconstruction, lr=p.lr) for p in swept(RISE)])
    assert choice.index == 3 and "no leak was measured" in choice.certificate


def test_points_are_pooled_by_learning_rate():
    points = [Point(d, 0.1, lr=lr) for d, lr in ((1.0, 0.1), (5.0, 0.2), (1.1, 0.1))]
    near, far = pool(points)
    assert near.rows == (0, 2) and far.rows == (1,)
    assert near.distance == pytest.approx(math.sqrt(1.1))
    half = pool([*points[:1], Point(1.2, 0.1, 0.2, lr=0.1)])
    assert half[0].broken and half[0].distance == pytest.approx(1.0)


def test_the_same_points_give_the_same_choice_in_any_order():
    points = inversion(numpy_generator(5, "test", 0), 2, samples=10**6)
    order = np.random.default_rng(0).permutation(len(points))
    one, two = choose_pivot(points), choose_pivot([points[i] for i in order])
    assert points[one.index] == points[order[two.index]]
    assert (one.value, one.low) == pytest.approx((two.value, two.low), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["logistic", "Gompertz"])
def test_five_seeds_find_the_knee_within_a_tenth_of_a_decade(shape):
    bias, sd, held, found = spread("knee", 5, 40, shape=shape)
    assert abs(bias) < 0.06 and sd <= 0.1 and held >= 0.8 and found >= 0.95
