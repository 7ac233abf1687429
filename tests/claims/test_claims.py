"""The claims' cells, and verdicts rebuilt from the committed ones byte for byte."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pti_pipeline import inference
from pti_pipeline.cli import main
from pti_pipeline.inference import exponents, mean_over_subjects, onset, resampled
from pti_pipeline.studies.claims import rebuild
from pti_pipeline.studies.claims.cells import Cell, read_cell, write_cell
from pti_pipeline.studies.claims.computing import missing
from pti_pipeline.studies.claims.evidence import Evidence
from pti_pipeline.studies.claims.grid import grid, needs, quick_grid
from pti_pipeline.studies.claims.light import light_tuning
from pti_pipeline.studies.claims.prompts import KINDS, PROMPTS, obeyed
from pti_pipeline.tracking.find import find_runs

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_every_cell_has_a_file_of_its_own_and_what_it_needs_is_in_the_grid():
    cells = grid()
    assert len({cell.name for cell in cells}) == len(cells) == len(set(cells))
    for cell in cells:
        assert needs(cell) is None or needs(cell) in cells
        assert needs(cell) is None or cells.index(needs(cell)) < cells.index(cell)


def test_at_least_five_subjects_and_three_seeds_stand_behind_the_main_claims():
    usual = [c for c in grid() if c.pictures == Cell.pictures and c.inverted and not c.constant]
    for kind in ("inversion", "tuning"):
        found = {(c.subject, c.seed) for c in usual if c.kind == kind and c.vectors == 1}
        subjects = {s for s, _ in found}
        assert len(subjects) >= 5
        assert all({(s, 0), (s, 1), (s, 2)} <= found for s in subjects)


def test_a_cell_is_written_whole_and_read_back(tmp_path):
    cell = Cell("tuning", "mochi", 3, inverted=False)
    write_cell(tmp_path, cell, {"runs": [{"lr": 1 / 3, "x": [1, 2]}]})
    assert [p.name for p in tmp_path.iterdir()] == ["tuning-mochi-4pictures-seed3-raw.json"]
    assert read_cell(tmp_path, cell)["runs"][0] == {"lr": 0.33333, "x": [1, 2]}
    assert missing([cell, quick_grid()[0]], tmp_path) == [quick_grid()[0]]


def test_results_are_rebuilt_from_the_cells_byte_for_byte(tmp_path):
    shutil.copytree(RESULTS / "cells", tmp_path / "cells")
    rebuild(tmp_path)
    for name in ("claims.json", "claims.md"):
        assert (tmp_path / name).read_bytes() == (RESULTS / name).read_bytes()


def test_every_verdict_says_what_stands_behind_it():
    rows = json.loads((RESULTS / "claims.json").read_text())
    assert {"inversion-knee", "light-tuning", "order"} <= {row["name"] for row in rows}
    for row in rows:
        assert row["verdict"] in ("supported", "not supported", "undecided")
        assert row["estimate"] is not None
        assert row["interval"][0] <= row["estimate"] <= row["interval"][1]
        for key in ("subjects", "seeds", "samples"):
            assert isinstance(row[key], int)
        assert row["commit"] and row["machine"] and row["command"]


def test_obedience_counts_samples_that_show_all_that_was_asked():
    asked = [wanted for prompts in KINDS.values() for _, wanted in prompts]
    names = {name for wanted in asked for name in wanted}
    read = {n: np.array([[w.get(n, 0), w.get(n, 0)] for w in asked]).ravel() for n in names}
    read = {name: torch.tensor(values) for name, values in read.items()}
    assert len(PROMPTS) == len(asked)
    assert obeyed(read, 2) == {kind: 1.0 for kind in KINDS}
    read["scene"] = read["scene"] + 1
    worse = obeyed(read, 2)
    assert worse["compound"] == 0.0 and worse["attribute"] == 1.0
    assert worse["simple"] == pytest.approx(5 / 12)


def test_an_onset_is_the_first_crossing_in_log_distance():
    x = np.logspace(0, 2, 21)
    gains = np.clip(np.log10(x) - 1, 0, None)
    gains[-1] = 0.0  # after collapse
    assert onset(x, gains, 0.5) == pytest.approx(10 ** (1 + 0.5 * 0.9), rel=1e-6)
    assert np.isnan(onset(x, -gains - 1, 0.5))


def test_intervals_are_those_of_subjects_not_of_seeds():
    rng = np.random.default_rng(0)
    apart = {
        s: list(centre + rng.normal(0, 0.01, 50))
        for s, centre in zip("abcde", range(5), strict=True)
    }
    e = mean_over_subjects(apart, resampled([50] * 5, np.random.default_rng(0)))
    assert e.value == pytest.approx(2.0, abs=0.02)
    assert 0.8 < e.low < 1.2 and 2.8 < e.high < 3.2
    alike = {s: list(rng.normal(0, 1, 50)) for s in "abcde"}
    tight = mean_over_subjects(alike, resampled([50] * 5, np.random.default_rng(0)))
    assert tight.high - tight.low < 0.5


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.93, 1.0), (1.0, 0.72, 0.92)])
def test_intervals_of_five_subjects_hold_the_truth_a_little_too_seldom(
    monkeypatch, share, low, high
):
    """By the share of the variance that is between subjects: so says the page of the claims."""
    monkeypatch.setattr(inference, "DRAWS", 200)
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        of = rng.normal(0, share**0.5, 5)
        seeds = rng.normal(0, (1 - share) ** 0.5, (5, 3))
        e = mean_over_subjects(dict(enumerate(of[:, None] + seeds)), resampled([3] * 5, rng))
        held += e.low <= 0 <= e.high
    assert low < held / 200 < high


def test_exponents_of_a_power_law_are_found():
    logs = np.random.default_rng(0).uniform(-3, 0, (40, 2))
    outcome = 0.7 * logs[:, 0] + 0.4 * logs[:, 1] + 2
    assert exponents(logs, outcome) == pytest.approx([0.7, 0.4])


def test_a_quick_run_computes_cells_judges_and_logs(store):
    folder = store / "results"
    for _ in range(2):  # the second finds its cells there
        done = CliRunner().invoke(main, ["claims", f"--folder={folder}", "--quick=yes"])
        assert done.exit_code == 0, done.output
    folder = folder / "quick"
    assert len(list((folder / "cells").glob("*.json"))) == len(quick_grid())
    first, second = find_runs(step="claims")
    assert (first.params["computed_before"], second.params["computed_before"]) == ("0", "2")
    assert "claims/order_estimate" in second.metrics and "pti.claim.order" in second.tags
    cell = json.loads(next((folder / "cells").glob("tuning-*seed0.json")).read_text())
    assert set(cell["cell"]) == {f.name for f in fields(Cell)}
    assert len(cell["runs"][0]["samples"]) >= 1 and len(cell["runs"][0]["scaled"]) == 9


def test_a_seed_that_travelled_farther_is_read_at_the_same_place_of_its_curve(tmp_path):
    usual = Evidence(RESULTS / "cells").usual("tuning")
    found = []
    for stretch in (1.0, 1.03):
        folder = tmp_path / str(stretch)
        for cell, result in usual.items():
            if cell.seed == 0:
                copy = json.loads(json.dumps({k: v for k, v in result.items() if k != "cell"}))
                write_cell(folder, cell, copy)
                for sample in copy["runs"][0]["samples"]:
                    sample["distance"] *= stretch
                write_cell(folder, replace(cell, seed=1), copy)
        (verdict,) = light_tuning(Evidence(folder))
        found.append(verdict)
    assert found[0].seeds == found[1].seeds == 2
    assert found[1].estimate == found[0].estimate
    limits = [verdict.details["limit_distance"].value for verdict in found]
    assert limits[1] / limits[0] == pytest.approx(1.03**0.5, rel=1e-4)
