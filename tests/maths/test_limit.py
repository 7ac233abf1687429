import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from simulated_sweeps import LIMIT, spread, tuning

from pti_pipeline.choosing.limit import choose_limit
from pti_pipeline.choosing.points import Point, pool
from pti_pipeline.randomness import numpy_generator


def measured(distance, auc, samples=256, kept=1.0, seed=0, lr=math.nan, reconstruction=0.5):
    error = 1 / math.sqrt(6 * samples)
    ends = auc - 1.96 * error, auc + 1.96 * error
    p = float(norm.sf((auc - 0.5) / error))
    return Point(distance, reconstruction, kept, p, auc, *ends, samples=samples, seed=seed, lr=lr)


def why(choice, index):
    return dict(choice.rejected)[index]


def test_limit_is_before_the_first_crossing_even_if_a_later_point_looks_clean():
    points = [
        Point(1.0, 0.1, 1.0, 0.6),
        Point(2.0, 0.2, 1.0, 0.4),
        Point(4.0, 0.3, 1.0, 0.01),
        Point(8.0, 0.9, 1.0, 0.9),
    ]
    choice = choose_limit(points)
    assert choice.index == 1 and choice.bracketed and choice.sound
    assert choice.value == pytest.approx(math.sqrt(8))
    assert "leak (p = 0.01) at distance 4" in choice.reason
    assert why(choice, 2) == "a leak is detected (p = 0.01)"
    assert why(choice, 3) == "beyond the first detected leak"
    assert why(choice, 0) == "nearer than the limit allows"


def test_limit_stops_before_collapse():
    for fallen in (Point(3.0, 0.1, 0.4, 0.9), Point(3.0, 0.1, 1.0, 0.9, gain=-0.2)):
        choice = choose_limit([Point(1.0, 0.1, 1.0, 0.6), fallen])
        assert choice.index == 0
        assert "first collapse at distance 3" in choice.reason
        assert why(choice, 1).startswith("collapsed")


def test_a_run_that_a_nearer_one_beats_is_not_chosen():
    """Pictures that fall apart hide the leak, before half of the editability is gone."""
    points = [
        measured(1.0, 0.5, kept=1.0, reconstruction=0.5),
        measured(2.0, 0.5, kept=0.9, reconstruction=0.7),
        measured(4.0, 0.45, kept=0.6, reconstruction=0.6),
    ]
    choice = choose_limit(points)
    assert choice.index == 1 and not choice.bracketed
    assert choice.reason.endswith("what is beyond 2 leaks or is worse than a nearer run")
    assert "larger learning rates" not in choice.reason
    assert why(choice, 2) == "a nearer distance reconstructs and obeys better"
    for better in ({"reconstruction": 0.71}, {"editability": 0.91}):
        assert choose_limit([*points[:2], replace(points[2], **better)]).index == 2
    unread = [replace(p, editability=math.nan) for p in points]
    assert choose_limit(unread).index == 1
    limited = choose_limit([*points, measured(8.0, 0.5, kept=0.1)])
    assert limited.index == 1 and limited.bracketed
    assert limited.reason.endswith("without a leak that no nearer one beats is at distance 2")


def test_a_diverged_run_ends_the_range_wherever_it_was_frozen():
    ill = Point(0.2, math.nan, diverged=True, lr=0.1)
    calm = [Point(1.0, 0.1, 1.0, 0.6, lr=0.001), Point(3.0, 0.1, 1.0, 0.6, lr=0.01)]
    choice = choose_limit([ill, *calm])
    assert choice.index == 2 and choice.value == pytest.approx(3.0)
    assert "divergence, at learning rate 0.1" in choice.reason and why(choice, 0) == "diverged"
    with pytest.raises(ValueError, match="diverged"):
        choose_limit([ill])


def test_the_fitted_crossing_is_the_limit():
    points = tuning(numpy_generator(0, "test", 0), 3, samples=4096)
    choice = choose_limit(points, 0.5)
    assert math.log10(choice.value) == pytest.approx(LIMIT, abs=0.12)
    assert choice.low < choice.value < choice.high
    chosen = points[choice.index]
    assert chosen.distance <= choice.value
    for i, other in enumerate(points):
        if other.lr > chosen.lr and other.distance <= choice.value:
            assert "leak is detected" in why(choice, i)  # smaller than the margin, yet seen
    same = [p.reconstruction for p in points if p.lr == chosen.lr]
    assert chosen.reconstruction == max(same)
    assert "3 seeds" in choice.reason


def test_beyond_the_collapse_nothing_counts():
    aucs = (0.5, 0.5, 0.6, 0.75, 0.5)
    points = [measured(10**k, auc, 1024) for k, auc in enumerate(aucs)]
    points.append(measured(1e5, 0.5, 1024, kept=0.1))
    points.append(measured(1e6, 0.5, 1024))
    choice = choose_limit(points)
    assert 10 <= choice.value < 100 and choice.index == 1
    assert why(choice, 6) == "at or beyond the first collapse"


def test_one_false_alarm_near_the_start_does_not_end_the_range():
    points = [measured(3.0**k, a) for k, a in enumerate((0.5, 0.545, 0.5, 0.49, 0.51, 0.75))]
    assert points[1].leak < 0.05
    choice = choose_limit(points)
    assert choice.index == 4
    assert "leak is detected" in why(choice, 1)
    sure = [measured(3.0**k, a) for k, a in enumerate((0.5, 0.57, 0.5, 0.49, 0.51, 0.75))]
    assert choose_limit(sure).index == 0


def test_no_limit_in_range_names_learning_rates():
    points = [measured(d, 0.5, 1024, lr=lr) for d, lr in ((1.0, 1e-4), (2.0, 3e-4), (4.0, 1e-3))]
    choice = choose_limit(points)
    assert choice.index == 2 and choice.sound and not choice.bracketed
    assert math.isnan(choice.low) and choice.value == 4.0
    assert "no limit in this range" in choice.reason
    assert "lr 0.003 and 0.01 (distances about 7.8 and 16)" in choice.reason
    bare = choose_limit([Point(1.0, 0.1, 1.0, 0.6), Point(2.0, 0.2, 1.0, 0.7)])
    assert bare.index == 1 and "larger learning rates" in bare.reason
    assert "too few points for a curve" in bare.reason


def test_everything_leaking_says_what_to_do():
    choice = choose_limit([Point(1.0, 0.1, 1.0, 0.01), Point(2.0, 0.2, 1.0, 0.0)])
    assert choice.index == 0 and not choice.sound
    assert "smaller learning rates" in choice.reason


def test_seeds_of_one_learning_rate_are_judged_together():
    # each p is above 0.05, the three together are not
    together = [measured(4.0, 0.535, seed=s, lr=0.01, reconstruction=0.5 + s) for s in range(3)]
    calm = [measured(1.0, 0.5, seed=s, lr=0.001, reconstruction=-s) for s in range(3)]
    assert all(p.leak > 0.05 for p in together)
    choice = choose_limit([*calm, *together])
    assert choice.index == 0  # of the calm three, that of best reconstruction
    assert "leak is detected" in why(choice, 4)
    assert "another seed" in why(choice, 1)


def test_the_interval_needs_seeds_and_narrows_with_them():
    one = choose_limit(tuning(numpy_generator(1, "test", 0), 1), 0.5)
    assert math.isnan(one.low) and "no interval: one seed" in one.reason
    widths = []
    for seeds in (3, 5):
        choices = [choose_limit(tuning(numpy_generator(k, "w", 0), seeds), 0.5) for k in range(2)]
        widths.append(np.median([math.log10(c.high) - math.log10(max(c.low, 1)) for c in choices]))
    assert widths[1] < widths[0]


def test_certificates_need_samples():
    few = choose_limit([measured(3.0**k, 0.5, 64) for k in range(3)])
    assert not few.certified and "571 samples of each run instead of 64" in few.certificate
    many = choose_limit([measured(3.0**k, 0.5, 1024) for k in range(3)])
    assert many.certified and "< 0.55" in many.certificate
    tainted = choose_limit(
        [measured(1.0, 0.54, 200), *[measured(3.0**k, 0.5, 4096) for k in (1, 2)]]
    )
    assert tainted.index == 2 and not tainted.certified  # a nearer one is not
    assert "distance 1," in tainted.certificate
    unread = choose_limit([Point(1.0, 0.1), Point(2.0, 0.2)])
    assert unread.certificate == "not certified: no leak was measured" and unread.index == 1
    high = choose_limit([measured(3.0**k, 0.56, 64) for k in range(2)])
    assert "not certified by any number" in high.certificate


@pytest.mark.slow
def test_five_seeds_find_the_limit_within_a_tenth_of_a_decade():
    bias, sd, held, found = spread("limit", 5, 40)
    assert abs(bias) < 0.06 and sd <= 0.12 and held >= 0.8 and found >= 0.95


def test_checkpoints_of_one_learning_rate_are_places_of_their_own():
    points = [
        replace(measured(d, auc, lr=1e-3), steps=n)
        for n, d, auc in ((62, 2.0, 0.5), (125, 4.0, 0.51), (250, 8.0, 0.52), (500, 16.0, 0.75))
    ]
    choice = choose_limit(points)
    assert choice.index == 2 and choice.bracketed
    assert 8.0 < choice.value < 16.0
    assert len(pool(points)) == 4
    seeds = [replace(p, seed=1, distance=1.1 * p.distance) for p in points]
    assert [len(p.rows) for p in pool([*points, *seeds])] == [2, 2, 2, 2]
