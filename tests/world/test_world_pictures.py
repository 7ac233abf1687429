"""``pti world render`` and ``pti world sample``, as a user calls them."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from pti_pipeline.cli import main
from pti_pipeline.steps.world_pictures import BLIND, choose_factors
from pti_pipeline.world import factors as f
from pti_pipeline.world.meaning import VALUES
from pti_pipeline.world.subjects import MOCHI, twins, views


def run(*words):
    result = CliRunner().invoke(main, ["world", *words])
    assert result.exit_code == 0, result.output
    return result


def equal(a, b):
    return all((getattr(a, n) == getattr(b, n)).all() for n in f.Factors.__dataclass_fields__)


def test_a_character_is_rendered_as_its_views(tmp_path):
    run("render", f"--folder={tmp_path}", "--count=3", "--size=32")
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "1.png",
        "2.png",
        "3.png",
        "factors.json",
    ]
    assert Image.open(tmp_path / "1.png").size == (32, 32)
    assert equal(choose_factors("mochi", "", "", "", 6, 0), views(MOCHI, 6))


def test_controls_and_twins_can_be_asked_for():
    constant = choose_factors("mochi", "", "scene", "", 6, 0)
    assert equal(constant, views(MOCHI, 6, constant="scene"))
    assert equal(choose_factors("mochi", "", "", "pose", 6, 0), twins(views(MOCHI, 6), 0, "pose"))
    assert equal(choose_factors("mochi", "", "", "all", 6, 0), twins(views(MOCHI, 6), 0))


def test_factors_are_held_and_others_vary():
    held = "species=cat, color=pink, scene=snow, column=left, row=top, size=big, arms=up"
    chosen = choose_factors("", held, "", "", 40, 0)
    assert {f.SPECIES[s] for s in chosen.species} == {"cat"}
    assert {f.SCENES[s] for s in chosen.scene} == {"snow"}
    assert set(f.column(chosen.x)) == {0} and set(f.row(chosen.y)) == {0}
    assert chosen.size.min() > np.linspace(*f.SIZE_RANGE, 4)[2] and (chosen.arms == 1).all()
    pink = f.shade(np.full(200, f.COLORS.index("pink")), np.random.default_rng(0))
    assert (np.abs(chosen.rgb.mean(0) - pink.mean(0)) < 0.1).all()
    assert len(set(chosen.eyes)) == 3 and len(set(chosen.hat)) == 4


def test_samples_are_drawn_from_the_base(tmp_path):
    file = tmp_path / "some" / "samples.png"
    run("sample", "--count=2", "--sampling-steps=2", f"--output={file}")
    assert Image.open(file).size == (192, 96)


def test_the_blind_sheet_asks_for_what_it_writes_down(tmp_path):
    run("blind", "--sampling-steps=2", f"--folder={tmp_path}")
    rows = json.loads((tmp_path / "results" / "blind.json").read_text("utf-8"))
    assert [row["number"] for row in rows] == list(range(1, 49))
    for name in BLIND:
        values = {row["asked"][name] for row in rows}
        assert values <= set(VALUES[name]) and len(values) >= 3
    assert not any(row["asked"]["hat"] == "none" or row["named"] for row in rows)
    assert Image.open(tmp_path / "images" / "blind.png").size[0] > 700


def test_the_docs_tell_how_much_was_named_right():
    root = Path(__file__).parents[2]
    rows = json.loads((root / "docs" / "results" / "blind.json").read_text("utf-8"))
    right = {n: np.mean([r["asked"][n] == r["named"][n] for r in rows]) for n in BLIND}
    page = (root / "docs" / "explanation" / "world.md").read_text("utf-8")
    shown = ", ".join(f"{n} {share:.2f}" for n, share in right.items())
    assert f"{shown}; together {np.mean(list(right.values())):.2f}" in page
    assert len(rows) == 48


def test_the_sheets_show_every_character_and_factor(tmp_path):
    run("sheet", f"--folder={tmp_path}")
    for name, rows in (("characters", 8), ("factors", 13)):
        width, height = Image.open(tmp_path / f"{name}.png").size
        assert height == 90 * rows + 45 and width > 800


def test_words_of_place_and_size_mean_their_thirds():
    for value, (low, high) in enumerate(pairwise(np.linspace(*f.X_RANGE, 4))):
        chosen = choose_factors("", f"column={f.COLUMNS[value]}", "", "", 30, 0)
        assert ((low <= chosen.x) & (chosen.x <= high)).all()
