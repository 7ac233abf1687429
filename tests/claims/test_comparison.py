"""The regularizers' comparison: its arms, its limits, and how a verdict follows."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from pti_pipeline.cli import main
from pti_pipeline.settings import FinetuneSettings
from pti_pipeline.studies.claims.arms import ARMS, CONTROLS, FINALISTS, ROWS, arm_settings
from pti_pipeline.studies.claims.beside import against_baselines
from pti_pipeline.studies.claims.cells import Cell, write_cell
from pti_pipeline.studies.claims.comparison_figure import comparison_figure, screen_figure
from pti_pipeline.studies.claims.comparison_grid import (
    baselines,
    best_weights,
    comparison_grid,
    finals,
    screen,
)
from pti_pipeline.studies.claims.curves import training_positions
from pti_pipeline.studies.claims.evidence import Evidence
from pti_pipeline.studies.claims.grid import grid
from pti_pipeline.studies.claims.limits import appearance_at, crossing, hypervolume, limit_of
from pti_pipeline.studies.claims.locality import best_arm, compared, locality
from pti_pipeline.studies.claims.prompts import KINDS
from pti_pipeline.studies.claims.tunings import SWEEP_LRS


def sweep(cell, farther, shown=0.6):
    """Results of a sweep that starts to stand where the pictures do beyond a learning rate."""
    rng = np.random.default_rng(0)
    places = training_positions(cell)

    def sample(share, appearance):
        n = 400
        free = rng.uniform(0.2, 0.8, (n, 2))
        copies = places[rng.integers(len(places), size=n)]
        where = np.where(rng.random(n)[:, None] < share, copies, free)
        x, y = (1000 * where.T).round().tolist()
        return {
            "x": x, "y": y, "appearance": appearance, "obeyed": dict.fromkeys(KINDS, 0.9),
        }  # fmt: skip

    runs = [
        {
            "lr": lr,
            "diverged": False,
            "probes": [{"distance": 1e4 * lr, "function_other": lr}],
            "samples": sample(float(lr > farther * 1.01), shown),
        }
        for lr in SWEEP_LRS[cell.rates]
    ]
    reference = {"class": sample(0, 0.3), "pivot": sample(0, 0.5)}
    return {"reference": reference, "runs": runs, "before": {}, "made": {"commit": "c"}}


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_tuning_of_as_many_rows(name):
    for weight in ARMS[name].weights:
        options = arm_settings(Cell("sweep", "mochi", 0, arm=name, weight=weight))
        settings = FinetuneSettings(lr=0.1, **options)
        beside = settings.regularizer in (
            "locality", "class-preservation", "prior-preservation",
        )  # fmt: skip
        assert settings.batch_size * (2 if beside else 1) == ROWS
        assert settings.reg_every == 1
    assert arm_settings(Cell("sweep", "mochi", 0)) == {}


def test_the_control_is_a_held_arm_without_its_held_rows():
    (control,) = CONTROLS
    alone = FinetuneSettings(lr=0.1, **arm_settings(Cell("sweep", "mochi", 0, arm=control)))
    near = arm_settings(Cell("sweep", "mochi", 0, arm="locality-near", weight=0.0))
    held = FinetuneSettings(lr=0.1, **near)
    assert alone.regularizer == "none"
    assert replace(held, regularizer="none", reg_weight=alone.reg_weight) == alone


def test_cells_of_arms_have_files_of_their_own():
    cells = [*grid(), *screen(), *finals(dict.fromkeys(ARMS, 1.0))]
    distinct = set(cells)
    assert len({cell.name for cell in distinct}) == len(distinct)
    assert screen()[0].name == "sweep-mochi-4pictures-seed0-none-1"


def test_finals_follow_from_a_whole_screen(tmp_path):
    cells = screen()
    assert comparison_grid(tmp_path) == cells
    for cell in cells:
        good = cell.weight == ARMS[cell.arm].weights[-1]
        result = sweep(cell, 1e-3, 0.9 if good or cell.arm == "timestep-rank" else 0.4)
        write_cell(tmp_path, cell, result)
    whole = comparison_grid(tmp_path)
    assert whole[: len(cells)] == cells
    slow = {(c.arm, c.weight) for c in whole[len(cells) :] if c.arm}
    assert {name for name, _ in slow} >= {*FINALISTS, *CONTROLS}
    arms = {(name, weight) for name, weight in slow if name in ARMS}
    assert all(weight == ARMS[name].weights[-1] for name, weight in arms)
    known = {c: json.loads((tmp_path / f"{c.name}.json").read_text()) for c in cells}
    assert len(best_weights(known)) == len(FINALISTS) + 1


def test_a_limit_is_where_the_leak_crosses_its_bound():
    cell = Cell("sweep", "mochi", 0, arm="none")
    early, late = limit_of(cell, sweep(cell, 2e-4)), limit_of(cell, sweep(cell, 8e-4))
    assert 2e-4 < early.lr < 4e-4 and 8e-4 < late.lr < 1.6e-3
    assert early.distance == pytest.approx(1e4 * early.lr)
    assert early.appearance == pytest.approx(0.6) and early.editability == pytest.approx(0.9)
    assert late.drift > early.drift
    never = limit_of(cell, sweep(cell, 1.0))
    assert (never.censored, early.censored, limit_of(cell, sweep(cell, 0.0)).censored) == (1, 0, -1)
    ill = sweep(cell, 1e-3)
    ill["runs"] = [{**run, "diverged": True} for run in ill["runs"]]
    assert not np.isfinite(limit_of(cell, ill).lr)
    assert never.lr == pytest.approx(SWEEP_LRS["usual"][-1])
    assert limit_of(cell, sweep(cell, 0.0)).lr == pytest.approx(SWEEP_LRS["usual"][0])
    assert never.hypervolume == pytest.approx(0.6 * 0.9, abs=0.06)


def test_crossings_and_volumes_by_hand():
    x = np.array([0.0, 1.0, 2.0])
    assert crossing(x, np.array([0.7, 0.5, 0.5]), 0.6) == 0.0
    assert crossing(x, np.array([0.5, 0.5, 0.5]), 0.6) == 2.0
    assert crossing(x, np.array([0.5, 0.7, 0.1]), 0.6) == 0.5  # the first, whatever follows
    assert hypervolume(np.array([[0.5, 0.5, 0.5]])) == 0.125
    assert hypervolume(np.array([[0.5, 0.5, 0.5], [0.4, 0.4, 0.4]])) == 0.125


FARTHER = {"locality-near": 4e-4, "none": 5e-5}


def written(folder, cells, shown=0.6, farther=FARTHER):
    for cell in cells:
        better = shown.get(cell.arm, 0.3) if isinstance(shown, dict) else shown
        write_cell(folder, cell, sweep(cell, farther.get(cell.arm, 5e-5), better))


def test_an_arm_that_goes_farther_at_an_equal_leak_is_supported(tmp_path):
    written(tmp_path, screen())
    assert list(locality(Evidence(tmp_path))) == []  # a screen alone decides nothing
    chosen = [c for c in comparison_grid(tmp_path)[len(screen()) :] if c.arm]
    best = {cell.arm: cell.weight for cell in chosen}
    written(tmp_path, chosen, 0.3)  # worse than the screen's, which must not change the weights
    found = {v.name: v for v in locality(Evidence(tmp_path))}
    assert found.pop("half-batch").verdict == "not supported"
    assert all(v.details["weight"] == best[name[12:]] for name, v in found.items())
    near, far = found["regularizer-locality-near"], found["regularizer-locality-far"]
    assert near.verdict == "supported" and near.estimate.value == pytest.approx(8, rel=0.2)
    assert far.verdict == "not supported" and far.estimate.value == pytest.approx(1, rel=0.2)
    assert near.subjects == 5 and near.seeds == 3
    assert near.details["limits_beyond_the_sweep"] == 0 and near.group == "locality"
    assert math.isfinite(near.details["hypervolume"].value)


def test_weights_are_drawn_after_the_screen_and_arms_after_the_finals(tmp_path):
    written(tmp_path, screen()[1:])
    assert screen_figure(Evidence(tmp_path)) is None
    written(tmp_path, screen()[:1])
    (axes,) = screen_figure(Evidence(tmp_path)).axes
    assert len(axes.get_lines()) == len(screen())  # of each weight the two subjects, and their mean
    assert comparison_figure(Evidence(tmp_path)) is None
    chosen = [c for c in comparison_grid(tmp_path)[len(screen()) :] if c.arm]
    written(tmp_path, chosen)
    panels = comparison_figure(Evidence(tmp_path)).axes
    arms = {cell.arm for cell in chosen}
    labels = [line.get_label().split()[0] for line in panels[0].get_lines()]
    assert labels[0] == "none" and labels[-2:] == [*CONTROLS, "bound"]
    assert set(labels[:-1]) == arms
    for panel in panels[3:]:  # of each arm but none an interval and its middle
        assert len(panel.get_yticks()) == len(arms) - 1
    near = [line for line in panels[3].get_lines() if len(line.get_xdata()) == 1]
    assert max(float(line.get_xdata()[0]) for line in near) == pytest.approx(8, rel=0.2)


@pytest.fixture
def finals_of(tmp_path):
    """Finals whose sweeps begin to leak where it is said, and show as much as is said."""
    written(tmp_path, screen())
    cells = [c for c in comparison_grid(tmp_path)[len(screen()) :] if c.arm]

    def write(farther, shown):
        written(tmp_path, cells, shown, farther)
        return Evidence(tmp_path)

    return write


def test_a_verdict_needs_an_interval_on_one_side(finals_of):
    shown = {"locality-near": 0.5}
    found = {v.name: v for v in locality(finals_of({}, shown))}
    near, far = found["regularizer-locality-near"], found["regularizer-locality-far"]
    assert near.verdict == "supported"  # by what it shows alone
    assert near.estimate.value == pytest.approx(1)
    assert near.details["appearance_less_that_of_none"].low == pytest.approx(0.2)
    assert near.details["appearance_less_that_of_half-batch"].low == pytest.approx(0.2)
    assert near.details["appearance_less_that_of_locality-far"].low == pytest.approx(0.2)
    assert near.details["appearance"].value == pytest.approx(0.5)
    assert far.details["appearance"].value == pytest.approx(0.3)
    assert "appearance_less_that_of_locality-far" not in far.details
    assert far.verdict == "not supported"
    evidence = finals_of({"locality-near": 3e-4}, {})
    for cell in evidence.of(arm="locality-near", rates="low"):
        if cell.subject in ("mochi", "bolt"):  # farther with three subjects of five
            evidence.cells[cell] = sweep(cell, 5e-5, 0.3)
    found = {v.name: v for v in locality(evidence)}
    assert found["regularizer-locality-near"].verdict == "undecided"


def test_ends_of_sweeps_count_where_they_say_which_limit_is_farther(finals_of):
    """One arm leaks from its first run on, one never."""
    evidence = finals_of({"none": 0.0, "locality-near": 1.0, "locality-far": 0.0}, {})
    found = {v.name: v for v in locality(evidence)}
    near, far = found["regularizer-locality-near"], found["regularizer-locality-far"]
    rates = SWEEP_LRS["low"]
    assert near.estimate.value == pytest.approx(rates[-1] / rates[0])
    assert near.details["limits_beyond_the_sweep"] == 1
    assert near.details["limits_before_the_sweep"] == 0
    assert math.isnan(far.estimate.value)  # both are mere ends
    assert (far.details["subjects_with_known_limits"], near.verdict) == (0, "supported")
    assert far.verdict == "undecided" and far.details["limits_before_the_sweep"] == 1


def test_limits_of_two_subjects_decide_nothing(finals_of):
    evidence = finals_of({"none": 0.0, "locality-near": 0.0}, {})
    for cell in evidence.of(arm="locality-near", rates="low"):
        if cell.subject in ("mochi", "bolt"):
            evidence.cells[cell] = sweep(cell, 4e-4, 0.3)
    found = {v.name: v for v in locality(evidence)}
    near = found["regularizer-locality-near"]
    assert near.details["subjects_with_known_limits"] == 2
    assert near.estimate.low > 2 and near.verdict == "undecided"


def test_the_best_arm_is_told_with_what_it_is_ahead(finals_of):
    (found,) = best_arm(finals_of({}, {"locality-far": 0.5, "none": 0.4}))
    assert found.claim.startswith("locality-far ") and "none" in found.unit
    assert found.verdict == "supported"
    volumes = [compared(finals_of({}, {"locality-far": x})).limits for x in (0.5, 0.4)]
    far = [
        np.mean([at.hypervolume for c, at in limits.items() if c.arm == "locality-far"])
        for limits in volumes
    ]
    assert found.estimate.value == pytest.approx(far[0] - far[1])
    assert found.estimate.low <= found.estimate.value <= found.estimate.high
    assert {"less_that_of_half-batch", "less_that_of_none"} <= set(found.details)
    assert (found.subjects, found.seeds) == (5, 3)
    assert "locality-far" not in found.unit


def test_the_best_arm_is_judged_by_what_the_screen_has_not_seen(finals_of):
    evidence = finals_of({}, {"locality-far": 0.5, "none": 0.4})
    for cell in evidence.of(arm="locality-far", rates="low"):
        if cell.seed == 0 and cell.subject in ("mochi", "bolt"):
            evidence.cells[cell] = sweep(cell, 5e-5, 0.9)
    (found,) = best_arm(evidence)
    assert found.estimate.high < found.details["less_that_of_none"].high


def test_arms_that_are_worth_the_same_are_undecided(finals_of):
    (found,) = best_arm(finals_of({}, {}))
    assert found.verdict == "undecided" and found.estimate.value == pytest.approx(0)


def test_baselines_stand_beside_the_light_tuning(tmp_path):
    written(tmp_path, screen(), 0.9)  # at other rates, which must not matter
    assert list(against_baselines(Evidence(tmp_path))) == []
    for cell in comparison_grid(tmp_path)[len(screen()) :]:
        if cell.arm == "none":
            write_cell(tmp_path, cell, sweep(cell, 2e-4, 0.8))
    for cell in baselines()[1:]:
        write_cell(tmp_path, cell, sweep(cell, 0.0, 0.5))
    assert list(against_baselines(Evidence(tmp_path))) == []  # one is missing
    write_cell(tmp_path, baselines()[0], sweep(baselines()[0], 0.0, 0.5))
    (found,) = against_baselines(Evidence(tmp_path))
    assert found.verdict == "supported" and found.estimate.value == pytest.approx(0.3)
    assert found.details["light_tuning_leak"].value < found.details["joint_leak"].value
    assert found.details["dreambooth_appearance"].value == pytest.approx(0.5)
    assert found.details["appearance_over_joint_at_its_leak"].value == pytest.approx(0.3)
    assert found.details["appearance_over_joint_at_the_limit"].value == pytest.approx(0.3)
    share = found.details["share_of_pairs_at_the_leak_of_joint"]
    assert share >= 0.5


def test_a_verdict_on_baselines_needs_pairs_that_leak_as_much(tmp_path):
    written(tmp_path, screen(), 0.9)
    for cell in comparison_grid(tmp_path)[len(screen()) :]:
        if cell.arm == "none":
            write_cell(tmp_path, cell, sweep(cell, 1.0, 0.8))  # it never leaks
    for cell in baselines():
        write_cell(tmp_path, cell, sweep(cell, 0.0, 0.5))
    (found,) = against_baselines(Evidence(tmp_path))
    assert found.details["share_of_pairs_at_the_leak_of_joint"] < 0.5
    assert found.verdict == "undecided"


def test_appearance_is_read_where_a_sweep_leaks_as_much():
    cell = Cell("sweep", "mochi", 0, arm="none", rates="low")
    result = sweep(cell, 1e-4)
    for i, run in enumerate(result["runs"]):
        run["samples"]["appearance"] = 0.1 * i
    here = sum(lr <= 1e-4 for lr in SWEEP_LRS["low"])  # runs that do not leak
    assert 0.1 * (here - 1) < appearance_at(cell, result, 0.6) < 0.1 * here
    assert math.isnan(appearance_at(cell, result, 0.0))  # it always leaks more than that
    assert math.isnan(appearance_at(cell, result, 1.1))


def test_nothing_is_said_before_the_screen_is_whole(tmp_path):
    for cell in screen()[:-1]:
        write_cell(tmp_path, cell, sweep(cell, 2e-4))
    assert list(locality(Evidence(tmp_path))) == []


@pytest.mark.slow
def test_a_quick_comparison_runs(store):
    words = ["claims", f"--folder={store / 'results'}", "--quick=yes", "--claim=locality"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    names = {p.name for p in (store / "results" / "quick" / "cells").glob("sweep-*.json")}
    others = {p.name for p in (store / "results" / "quick" / "cells").glob("[dj]*.json")}
    assert others == {
        "dreambooth-mochi-4pictures-seed0-2vectors.json",
        "joint-mochi-4pictures-seed0.json",
    }
    assert names == {
        "sweep-mochi-4pictures-seed0-none-1-low-rates.json",
        "sweep-mochi-4pictures-seed0-locality-near-1-low-rates.json",
    }
