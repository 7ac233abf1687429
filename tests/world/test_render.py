from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pti_pipeline.world import concatenate, masks, render, sample_factors
from pti_pipeline.world import factors as f
from pti_pipeline.world.subjects import MOCHI, views


@pytest.fixture(scope="module")
def drawn():
    return sample_factors(400, np.random.default_rng(0))


def test_pictures_are_a_function_of_the_factors(drawn):
    few = drawn[:20]
    pictures = render(few)
    assert pictures.shape == (20, 48, 48, 3) and pictures.dtype == np.uint8
    assert (render(few) == pictures).all()
    one_by_one = np.concatenate([render(few[i : i + 1]) for i in range(20)])
    assert (one_by_one == pictures).all()


CHANGES = {
    "species": lambda v: (v + 1) % 6,
    "rgb": lambda v: 1 - v,
    "belly_rgb": lambda v: 1 - v,
    "hat": lambda v: (v + 1) % 4,
    "emblem": lambda v: (v + 1) % 5,
    "eyes": lambda v: (v + 1) % 3,
    "x": lambda v: v + 0.1,
    "y": lambda v: v - 0.1,
    "size": lambda v: v * 1.2,
    "facing": lambda v: 1 - v,
    "arms": lambda v: 1 - v,
    "scene": lambda v: (v + 1) % 7,
    "scene_seed": lambda v: v + 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_factor_shows(drawn, name):
    few = drawn[:60]
    changed = replace(few, **{name: CHANGES[name](getattr(few, name))})
    different = (render(few) != render(changed)).any((1, 2, 3))
    assert different.mean() > 0.95


def test_a_hats_color_shows_where_there_is_a_hat(drawn):
    few = drawn[:60]
    different = (render(few) != render(replace(few, hat_rgb=1 - few.hat_rgb))).any((1, 2, 3))
    assert (different == (few.hat > 0)).all()


def test_masks_follow_the_position_and_ignore_the_scene(drawn):
    few = drawn[:60]
    seen = masks(few)
    centers = np.array([[np.nonzero(m)[1].mean(), np.nonzero(m)[0].mean()] for m in seen]) / 48
    assert np.corrcoef(centers[:, 0], few.x)[0, 1] > 0.97
    assert np.corrcoef(centers[:, 1], few.y)[0, 1] > 0.9
    assert (masks(replace(few, scene=(few.scene + 1) % 7)) == seen).all()


def test_training_draws_leave_out_what_is_held_out():
    factors = sample_factors(20_000, np.random.default_rng(1))
    for species, color in f.HELD_OUT:
        rows = factors.species == f.SPECIES.index(species)
        assert not (rows & (factors.color == f.COLORS.index(color))).any()
    unnamed = [f.EMBLEMS.index(name) for name in f.UNNAMED_EMBLEMS]
    assert not np.isin(factors.emblem, unnamed).any()
    assert not (factors.belly == factors.color).any()
    everything = sample_factors(5000, np.random.default_rng(1), held_out=True)
    assert np.isin(everything.emblem, unnamed).any()


def test_positions_are_uniform_and_independent_of_identity():
    factors = sample_factors(20_000, np.random.default_rng(2))
    for values, (low, high) in ((factors.x, f.X_RANGE), (factors.y, f.Y_RANGE)):
        counts, _ = np.histogram(values, 10, (low, high))
        assert counts.sum() == 20_000 and counts.min() > 1800
        assert abs(np.corrcoef(values, factors.species)[0, 1]) < 0.03
    for thirds in (f.column(factors.x), f.row(factors.y)):
        assert np.bincount(thirds, minlength=3).min() > 6200


def test_factors_are_cut_and_joined(drawn):
    joined = concatenate([drawn[:3], drawn[3:5]])
    assert len(joined) == 5
    assert all((getattr(joined, x.name) == getattr(drawn[:5], x.name)).all() for x in fields(drawn))


def test_the_demos_files_are_renders_of_a_held_out_character():
    pictures = views(MOCHI, 6)
    assert ("rabbit", "purple") in f.HELD_OUT
    assert len(set(pictures.scene)) == 6 and len(set(f.column(pictures.x))) == 3
    folder = Path(__file__).parents[2] / "examples" / "mochi"
    files = sorted(folder.glob("*.png"))
    assert len(files) == 6
    for file, picture in zip(files, render(pictures, 192), strict=True):
        gap = np.abs(np.asarray(Image.open(file)).astype(int) - picture)
        assert gap.mean() < 0.1  # another processor may round a pixel otherwise
