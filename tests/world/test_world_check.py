"""The check itself: what it measures on pictures whose truth is known, and how it reports."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pti_pipeline.errors import ModelError
from pti_pipeline.families import WORLD
from pti_pipeline.known_misses import KnownMiss
from pti_pipeline.settings import SampleSettings
from pti_pipeline.steps.world_check import FULL, QUICK, Effort, check_world, table, write_results
from pti_pipeline.steps.world_check.drawing import Samples, as_images, captions, silent_prompts
from pti_pipeline.steps.world_check.laboratory import change, energies, null_of_the_leak
from pti_pipeline.steps.world_check.measure import Measure, load_known, verdict
from pti_pipeline.steps.world_check.obeying import freedom, obedience
from pti_pipeline.steps.world_check.reading import agreement, visible
from pti_pipeline.world import render, sample_factors
from pti_pipeline.world.factors import HELD_OUT, X_RANGE, Y_RANGE
from pti_pipeline.world.meaning import meaning
from pti_pipeline.world.reader import load_reader


def by_name(measures):
    return {m.name: m for m in measures}


@pytest.fixture(scope="module")
def reader():
    return load_reader()


@pytest.fixture(scope="module")
def drawn():
    factors, said = captions(300)
    return factors, Samples(said, as_images(render(factors)))


@pytest.mark.parametrize(
    ("value", "least", "most", "passed", "gate"),
    [
        (0.9, 0.9, None, True, "≥ 0.9"),
        (0.89, 0.9, None, False, "≥ 0.9"),
        (0.5, 0.47, 0.53, True, "≥ 0.47 and ≤ 0.53"),
        (0.6, 0.47, 0.53, False, "≥ 0.47 and ≤ 0.53"),
        (math.nan, 0.9, None, False, "≥ 0.9"),
        (math.nan, None, 0.9, False, "≤ 0.9"),
        (0.1, None, None, True, ""),
    ],
)
def test_a_measure_knows_its_gate(value, least, most, passed, gate):
    measure = Measure("group", "name", value, least, most)
    assert measure.passed is passed
    assert measure.gate == gate


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.95, "reached"), (0.86, "missed (known)"), (0.82, "missed (known)"), (0.80, "missed")],
)
def test_a_known_miss_is_told_apart_while_it_is_no_worse(value, said):
    known = [KnownMiss("hat", 0.85, "why", "2026-01-01", "obedience")]
    assert verdict(Measure("obedience", "hat", value, least=0.9), known) == said
    if said != "reached":
        assert verdict(Measure("obedience", "species", value, least=0.9), known) == "missed"
        assert verdict(Measure("obedience", "hat", value, least=0.9), []) == "missed"


def test_a_known_miss_from_above():
    known = [KnownMiss("picture (s)", 0.6, "why", "2026-01-01", "cost")]
    said = [verdict(Measure("cost", "picture (s)", v, most=0.5), known) for v in (0.4, 0.62, 0.7)]
    assert said == ["reached", "missed (known)", "missed"]
    assert verdict(Measure("cost", "picture (s)", 9.0), known) == ""


def test_a_known_miss_of_a_two_sided_gate_is_held_on_its_own_side():
    known = [KnownMiss("mean AUC", 0.46, "why", "2026-01-01", "leak's null")]
    said = [
        verdict(Measure("leak's null", "mean AUC", v, 0.47, 0.53), known)
        for v in (0.5, 0.455, 0.4, 0.6)
    ]
    assert said == ["reached", "missed (known)", "missed", "missed"]


def test_known_misses_are_read_from_the_worlds_folder(tmp_path):
    assert load_known(tmp_path) == []
    row = {"group": "a", "name": "b", "value": 0.5, "reason": "c", "date": "d"}
    (tmp_path / "known.json").write_text(json.dumps([row]), "utf-8")
    assert load_known(tmp_path) == [KnownMiss(**row)]
    shown = table([Measure("a", "b", 0.5, least=0.9)], load_known(tmp_path))
    assert shown.endswith("| a | b | 0.500 | ≥ 0.9 |  | **missed (known)** |")


def test_renders_obey_their_captions_and_others_do_not(reader, drawn):
    samples = drawn[1]
    right = by_name(obedience(reader, samples))
    assert min(right[n].value for n in ("color", "scene", "column", "row", "arms")) > 0.9
    wrong = by_name(obedience(reader, Samples(samples.prompts[::-1], samples.images)))
    assert wrong["scene"].value < 0.3 and not wrong["scene"].passed
    assert wrong["scene"].chance == pytest.approx(1 / 7)


def test_renders_are_free_and_constant_ones_are_not(reader, drawn):
    factors, samples = drawn
    free = by_name(freedom("renders", reader, samples.images))
    assert all(m.passed for m in free.values()), free
    stuck = replace(factors, x=0 * factors.x + 0.3, scene=0 * factors.scene)
    held = by_name(freedom("constant", reader, as_images(render(stuck))))
    assert held["x (KS)"].value > 0.8 and not held["x (KS)"].passed
    assert held["scene (entropy)"].value < 0.1 and held["y (KS)"].passed


def test_two_readers_agree_on_renders(reader, drawn):
    assert all(m.passed for m in agreement(reader, drawn[1].images))


def test_the_base_against_itself_leaks_nothing_and_copies_do():
    rng = np.random.default_rng(0)
    pool = np.stack([rng.uniform(*X_RANGE, 2048), rng.uniform(*Y_RANGE, 2048)], 1)
    null = by_name(null_of_the_leak(pool, 400))
    assert null["mean AUC"].passed and null["false alarms"].passed
    assert null["false alarms"].most == pytest.approx(0.0675, abs=0.003)


def test_energies_are_even_where_they_should_be():
    found = by_name(energies(300))
    assert found["position edit"].value > found["appearance edit"].value
    ratio = found["position edit, even"].value / found["appearance edit"].value
    assert ratio == pytest.approx(1, abs=0.1)
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    assert change(black, white) == 1 and change(white, white) == 0


def test_silent_prompts_say_species_and_color_only():
    for text in silent_prompts(60):
        assert set(meaning(text)) == {"species", "color"}
        assert not any(species in text and color in text for species, color in HELD_OUT)


def test_an_emblem_counts_where_it_stands_out():
    factors = sample_factors(200, np.random.default_rng(0))
    same = replace(factors, belly_rgb=factors.rgb)
    assert visible(factors)["emblem"].mean() > 0.9
    assert not visible(same)["emblem"].any()


def test_the_check_goes_through_and_writes_what_it_found(tmp_path):
    small = Effort(renders=40, said=16, silent=0, pool=0, resamples=0)
    found = list(check_world(small, SampleSettings(4, 3.0)))
    measures = [m for m in found if isinstance(m, Measure)]
    assert {m.group for m in measures} == {
        *("reader", "autoencoder", "CLIP", "energy", "cost", "obedience", "two readers"),
    }
    assert sum(len(s.prompts) for s in found if isinstance(s, Samples)) == 16
    write_results(measures, small, tmp_path / "results" / "world.json")
    written = json.loads((tmp_path / "results" / "world.json").read_text())
    assert written["effort"]["said"] == 16 and len(written["measures"]) == len(measures)
    assert written["measures"][0]["passed"] == measures[0].passed
    lines = table(measures).splitlines()
    assert len(lines) == len(measures) + 2 and lines[2].startswith("| reader | species |")
    assert QUICK.pool == 0


def test_a_foreign_folder_is_told_what_it_lacks(tmp_path):
    (tmp_path / "unet").mkdir()
    with pytest.raises(ModelError, match=r"E409.*no vae.*no clip, no reader"):
        next(check_world(QUICK, SampleSettings(), tmp_path))
    assert WORLD.is_dir()


def test_the_model_card_shows_the_results():
    root = Path(__file__).parents[2]
    found = json.loads((root / "docs" / "results" / "world.json").read_text("utf-8"))
    rows = [{k: v for k, v in row.items() if k != "passed"} for row in found["measures"]]
    card = (WORLD / "README.md").read_text("utf-8")
    assert table([Measure(**row) for row in rows], load_known(WORLD)) in card
    assert found["effort"] == asdict(FULL)
    assert len({(row["group"], row["name"]) for row in rows}) == len(rows) > 40
