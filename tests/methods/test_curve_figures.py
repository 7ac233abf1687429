"""The figure of a choice: what is drawn is what was measured, fitted and chosen."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from pti_pipeline.choosing.knee import choose_pivot
from pti_pipeline.choosing.limit import choose_limit
from pti_pipeline.choosing.points import Point
from pti_pipeline.curve_figures import COLORS, PLACE, sweep_figure
from pti_pipeline.randomness import numpy_generator

sys.path.append(str(Path(__file__).parents[1] / "maths"))
from simulated_sweeps import inversion, tuning

LABELS = {name: f"the {name}" for name in COLORS}
LEVELS = {"reconstruction": 0.0, "editability": 1.0, "leak": 0.5}


def drawn(points, choice, **options):
    figure = sweep_figure("A sweep", points, choice, LABELS, LEVELS, **options)
    figure.canvas.draw()
    return figure, figure.axes


def lines(axes, color, marked):
    found = [line for line in axes.lines if to_hex(line.get_color()) == color]
    return [line for line in found if (line.get_marker() != "None") == marked]


@pytest.fixture(scope="module")
def seeds():
    points = inversion(numpy_generator(0, "figure", 0), 2)
    return points, choose_pivot(points)


def test_points_curves_and_the_knee_are_where_they_were_found(seeds):
    points, choice = seeds
    _, panels = drawn(points, choice)
    assert [a.get_title() for a in panels] == list(LABELS.values())
    for axes, (name, color) in zip(panels, COLORS.items(), strict=True):
        key = "auc" if name == "leak" else name
        dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines(axes, color, True)]
        assert sorted(dots) == sorted((p.distance, getattr(p, key)) for p in points)
        (curve,) = lines(axes, color, False)
        fitted = getattr(choice.fits, name)
        np.testing.assert_allclose(curve.get_ydata(), fitted(np.log10(curve.get_xdata())))
        (place,) = lines(axes, PLACE, False)
        assert place.get_xdata()[0] == choice.value
        assert axes.get_xscale() == "log"
        assert len(axes.collections) == 1  # the band over seeds


def test_seeds_have_marks_of_their_own_and_learning_rates_stand_above(seeds):
    points, choice = seeds
    _, panels = drawn(points, choice)
    marks = {line.get_marker() for line in lines(panels[0], COLORS["reconstruction"], True)}
    assert len(marks) == 2
    (top,) = panels[0].child_axes
    labels = [t.get_text() for t in top.get_xticklabels()]
    assert labels == ["3e-5", "1e-4", "3e-4", "1e-3", "3e-3", "1e-2"]


def test_one_seed_has_error_bars_and_no_band(seeds):
    points = [replace(p, seed=0) for p in seeds[0] if p.seed == 0]
    choice = choose_pivot(points)
    figure, panels = drawn(points, choice)
    assert [len(a.collections) for a in panels] == [0, 0, len(points)]
    assert not any("95 %" in t.get_text() for t in figure.legends[0].get_texts())


def test_collapsed_points_are_hollow_and_others_pale():
    points = tuning(numpy_generator(0, "figure", 0), 1)
    choice = choose_limit(points, 0.5)
    figure, panels = drawn(points, choice, others=[Point(2.0, 0.6, 1.0, 0.5, 0.5)])
    dots = lines(panels[1], COLORS["editability"], True)
    hollow = [line for line in dots if to_hex(line.get_markerfacecolor()) == "#ffffff"]
    assert [line.get_ydata()[0] for line in hollow] == [p.editability for p in points if p.broken]
    assert any(line.get_alpha() == 0.4 and line.get_xdata()[0] == 2.0 for line in panels[0].lines)
    words = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "collapsed" in words and "limit" in words


def test_little_can_be_drawn_too():
    few = [Point(1.0, 0.1), Point(3.0, 0.2), Point(9.0, math.nan, diverged=True)]
    for choice in (choose_pivot(few), choose_limit(few), choose_limit(few[:1])):
        points = few[: len(choice.rows)]
        _, panels = drawn(points, choice)
        assert not lines(panels[0], PLACE, False) or choice.bracketed
        assert len(lines(panels[0], COLORS["reconstruction"], True)) == min(2, len(points))
