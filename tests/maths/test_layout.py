"""Layouts of shapes whose place, area and direction are known."""

import numpy as np
import pytest

from pti_pipeline import layout


def bar(side=40, row=10, left=4, high=4, wide=20):
    mask = np.zeros((side, side), bool)
    mask[row : row + high, left : left + wide] = True
    return mask


def test_features_of_a_bar():
    x, y, area, cosine, sine = layout.features(bar())
    assert (x, y) == pytest.approx(((4 + 10) / 40, (10 + 2) / 40))
    assert area == pytest.approx(np.log(80 / 1600))
    lying = cosine
    upright = layout.features(bar().T)
    assert upright[:2] == pytest.approx([y, x])
    assert upright[3] == pytest.approx(-lying) and abs(lying) == pytest.approx(1)
    assert sine == pytest.approx(0, abs=1e-9)


def test_both_ends_of_a_diagonal_mean_the_same():
    falling = np.eye(40, dtype=bool)
    features = layout.features(falling)
    assert layout.features(np.rot90(falling, 2)) == pytest.approx(features)
    assert layout.features(np.rot90(falling))[4] == pytest.approx(-features[4])
    assert abs(features[4]) == pytest.approx(1)


def test_an_empty_mask_has_no_features():
    empty = np.zeros((8, 8), bool)
    assert np.isnan(layout.features(empty)).all()
    assert np.isnan(layout.background(np.ones((8, 8, 3)), empty)).all()
    assert np.isnan(layout.background(np.ones((8, 8, 3)), ~empty)).all()


def test_the_background_is_the_color_outside():
    picture = np.zeros((40, 40, 3))
    picture[~bar()] = (0.25, 0.5, 1)
    assert layout.background(picture, bar()) == pytest.approx([0.25, 0.5, 1])


def test_otsu_keeps_the_largest_bright_region():
    heat = np.random.default_rng(0).normal(0, 0.02, (40, 40))
    heat[bar()] += 1
    heat[30:33, 30:33] += 1
    assert (layout.otsu_mask(heat) == bar()).all()
    assert not layout.otsu_mask(np.full((8, 8), 0.3)).any()
