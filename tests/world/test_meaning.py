"""What captions mean, and what a reader without learning sees."""

import numpy as np
import pytest

from pti_pipeline.world import caption, render, sample_factors
from pti_pipeline.world import factors as f
from pti_pipeline.world.analytic import read_picture
from pti_pipeline.world.captions import SAID
from pti_pipeline.world.meaning import VALUES, is_true, meaning, values


@pytest.fixture(scope="module")
def drawn():
    factors = sample_factors(1500, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    return factors, [caption(factors, i, rng) for i in range(len(factors))]


def test_captions_mean_what_their_picture_shows(drawn):
    factors, captions = drawn
    true = values(factors)
    said = [meaning(text) for text in captions]
    for i, words in enumerate(said):
        for name, value in words.items():
            assert true[name][i] == value, (captions[i], name)
        assert is_true(words, true)[i]
    for name in ("species", "color", "arms", "facing", "scene"):
        assert np.mean([name in words for words in said]) == pytest.approx(SAID[name], abs=0.04)


def test_a_caption_is_true_of_what_it_does_not_contradict(drawn):
    factors, _ = drawn
    true = values(factors)
    assert is_true(meaning("a character"), true).all()
    cats = is_true(meaning("a red cat in the snow"), true)
    expected = (factors.species == f.SPECIES.index("cat")) & (factors.color == 0)
    assert (cats == (expected & (factors.scene == f.SCENES.index("snow")))).all()


def test_every_word_is_understood():
    text = (
        "a drawing of a big pink ghost with black eyes and a green cap and white stripes, "
        "arms up, facing left, at the top on the right, in outer space"
    )
    said = {name: VALUES[name][value] for name, value in meaning(text).items()}
    assert said == {
        "size": "big",
        "color": "pink",
        "species": "ghost",
        "eyes": "black",
        "hat_color": "green",
        "hat": "cap",
        "belly": "white",
        "emblem": "stripes",
        "arms": "up",
        "facing": "left",
        "row": "top",
        "column": "right",
        "scene": "space",
    }
    assert meaning("nothing of the kind") == {}


def test_the_reader_without_learning_reads_renders(drawn):
    factors = drawn[0][:300]
    rows = [read_picture(picture) for picture in render(factors)]
    read = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    assert (read["scene"] == factors.scene).mean() > 0.99
    assert (read["color"] == factors.color).mean() > 0.9
    assert np.corrcoef(read["x"], factors.x)[0, 1] > 0.98
    assert np.corrcoef(read["y"], factors.y)[0, 1] > 0.95
    assert abs((read["y"] - factors.y).mean()) < 0.02


def test_the_reader_without_learning_finds_nothing_in_an_empty_scene():
    sky = np.full((48, 48, 3), 200, np.uint8)
    assert np.isnan(read_picture(sky)["x"]) or read_picture(sky)["x"] == pytest.approx(0.5, abs=0.1)
