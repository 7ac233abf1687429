import re

import numpy as np
import pytest

from pti_pipeline.world import WORDS, caption, sample_factors
from pti_pipeline.world import factors as f
from pti_pipeline.world.captions import COLUMN_WORDS, OPENINGS, ROW_WORDS, SAID


@pytest.fixture(scope="module")
def said():
    factors = sample_factors(4000, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    return factors, [caption(factors, i, rng) for i in range(len(factors))]


def test_captions_repeat_with_their_generator(said):
    factors, captions = said
    rng = np.random.default_rng(1)
    assert [caption(factors, i, rng) for i in range(20)] == captions[:20]


def test_every_word_is_a_token(said):
    _, captions = said
    words = {w for c in captions for w in re.findall(r"[a-z]+|,", c)}
    assert words <= set(WORDS)
    assert words >= {*f.SPECIES, *f.COLORS, *f.SCENES, *f.HATS[1:], "left", "right"}


def share(captions, pattern):
    return np.mean([bool(re.search(pattern, c)) for c in captions])


def test_attributes_are_dropped_at_their_rates(said):
    factors, captions = said
    scene = "|".join(f.SCENES)
    assert share(captions, scene) == pytest.approx(SAID["scene"], abs=0.03)
    assert share(captions, "|".join(f.SPECIES)) == pytest.approx(SAID["species"], abs=0.03)
    assert share(captions, "arms (up|down)") == pytest.approx(SAID["arms"], abs=0.03)
    hats = [c for c, h in zip(captions, factors.hat, strict=True) if h > 0]
    assert share(hats, r"\b(hat|cap|crown)\b") == pytest.approx(SAID["hat"], abs=0.03)
    places = "|".join([*COLUMN_WORDS.values(), *ROW_WORDS.values()])
    assert share(captions, places) == pytest.approx(SAID["position"], abs=0.03)


def test_what_is_said_is_true(said):
    factors, captions = said
    columns, rows = f.column(factors.x), f.row(factors.y)
    for i, text in enumerate(captions):
        noun = re.search(rf"\b({'|'.join(f.SPECIES)})\b", text)
        assert noun is None or noun[1] == f.SPECIES[factors.species[i]]
        for name, words in COLUMN_WORDS.items():
            assert words not in text or f.COLUMNS[columns[i]] == name
        for name, words in ROW_WORDS.items():
            assert words not in text or f.ROWS[rows[i]] == name
        for name in f.HATS[1:]:
            assert not re.search(rf"\b{name}\b", text) or f.HATS[factors.hat[i]] == name
        if "facing" in text:
            assert ("facing right" in text) == bool(factors.facing[i])


def test_no_caption_names_an_unnamed_emblem():
    factors = sample_factors(500, np.random.default_rng(0), held_out=True)
    rng = np.random.default_rng(0)
    captions = [caption(factors, i, rng) for i in range(len(factors))]
    assert not any(name in c for c in captions for name in f.UNNAMED_EMBLEMS)


def test_the_order_varies(said):
    _, captions = said
    both = [c for c in captions if "facing" in c and "arms" in c]
    first = np.mean([c.index("facing") < c.index("arms") for c in both])
    assert 0.4 < first < 0.6
    assert {next((o for o in OPENINGS if o and c.startswith(o)), "") for c in captions} == set(
        OPENINGS
    )
