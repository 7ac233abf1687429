import math

import pytest

from pti_pipeline.knee import Point, choose_limit, choose_pivot


def test_pivot_is_the_nearest_point_with_most_of_the_gain():
    points = [Point(4.0, 0.50, 1.0), Point(0.1, 0.10, 1.0), Point(1.0, 0.48, 1.0)]
    choice = choose_pivot(points)
    assert choice.index == 2
    assert "distance 1)" in choice.reason


def test_pivot_keeps_editability():
    points = [Point(0.1, 0.2, 1.0), Point(1.0, 0.5, 0.8)]
    choice = choose_pivot(points)
    assert choice.index == 0
    assert "95%" in choice.reason


def test_a_pivot_that_leaks_is_not_the_knee():
    points = [Point(0.1, 0.2, 1.0, 0.5), Point(1.0, 0.5, 1.0, 0.001)]
    assert choose_pivot(points).index == 0


def test_all_collapsed_is_an_error():
    with pytest.raises(ValueError, match="collapsed"):
        choose_pivot([Point(1.0, 0.5, 0.1), Point(2.0, math.nan, 1.0)])


def test_limit_is_before_the_first_crossing_even_if_a_later_point_looks_clean():
    points = [
        Point(1.0, 0.1, 1.0, 0.6),
        Point(2.0, 0.2, 1.0, 0.4),
        Point(4.0, 0.3, 1.0, 0.01),
        Point(8.0, 0.9, 1.0, 0.9),
    ]
    choice = choose_limit(points)
    assert choice.index == 1
    assert "leak" in choice.reason and "distance 4" in choice.reason


def test_limit_stops_before_collapse():
    choice = choose_limit([Point(1.0, 0.1, 1.0, 0.6), Point(3.0, 0.1, 0.4, 0.9)])
    assert choice.index == 0
    assert "collapse" in choice.reason


def test_no_limit_in_range_says_what_to_do():
    choice = choose_limit([Point(1.0, 0.1, 1.0, 0.6), Point(2.0, 0.2, 1.0, 0.7)])
    assert choice.index == 1 and choice.sound
    assert "larger learning rates" in choice.reason


def test_everything_leaking_says_what_to_do():
    choice = choose_limit([Point(1.0, 0.1, 1.0, 0.01), Point(2.0, 0.2, 1.0, 0.0)])
    assert choice.index == 0 and not choice.sound
    assert "smaller learning rates" in choice.reason
