"""Every key of the metrics' reference has its meaning, its unit and range, and its direction."""

import math

import pytest
from documented import bounds, outside, ranges, rows, untold

OPEN = {
    "claims/<claim>_estimate",
    "claims/<claim>_low",
    "claims/<claim>_high",
    "<part>/loss",
    "<part>/samples_per_second",
    "system/...",
}
"""Metrics that stand for several: of claims, of parts of the world, and of MLflow's own."""


def test_no_cell_is_empty_and_every_unit_is_told():
    found = list(rows())
    assert len(found) > 50
    for cells in found:
        assert len(cells) == 4 and all(cells), cells
        assert cells[2] != "-", cells


def test_every_key_has_bounds_or_says_that_there_are_none():
    told = {}
    for name, range_ in ranges():
        told.setdefault(name, []).append(range_)
    without = {n for n, all_ in told.items() if not any(bounds(r) or "any" in r for r in all_)}
    assert without == set()


def test_every_key_is_named_in_full():
    """But for those few, a wide name would tell whatever is logged."""
    keys = {name for name, _ in ranges()}
    assert {key for key in keys if "<" in key or "..." in key} == OPEN


def test_names_that_the_page_does_not_tell_are_noticed():
    told = ["train/loss", "leak/pivot_auc_high", "distance/function_class", "pti.reader.leak"]
    unheard = {"leak/unheard", "leak/unheard_auc", "leak/class_auc_p", "reconstruction/pivot_class"}
    assert untold([*told, *unheard]) == unheard


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        ("leak/class_auc", (0, 0.5, 1), (-0.01, 1.01)),
        ("leak/copying_p", (0.005, 1), (0.004,)),
        ("distance/angle", (0, 180), (180.1, -1)),
        ("train/lr", (1e-9,), (0, -1)),
        ("reconstruction/ssim", (-1, 1), (1.1,)),
        ("reconstruction/psnr", (0, 40), (-1,)),
        ("reconstruction/bank_gain", (-3, 1), (1.1,)),
        ("choice/leak_upper", (0, 1.1), (-1,)),
        ("distance/efficiency", (0, 3), (-1,)),
        ("distance/log10", (-9, 9), ()),
        ("twins/scene", (-9, 9), ()),
    ],
)
def test_values_out_of_their_range_are_noticed(name, within, beyond):
    assert [value for value in within if outside({name: value})] == []
    assert [value for value in beyond if not outside({name: value})] == []
    assert not beyond or outside({name: math.nan})


def test_a_range_may_be_another_metric():
    path = {"distance/path": 2.0, "distance/delta_norm": 1.0}
    assert outside(path) == {}
    assert outside({**path, "distance/delta_norm": 3.0}) == {"distance/path": 2.0}


def test_a_range_of_the_world_holds_there_alone():
    assert outside({"editability/relative": -1.0}) and not outside(
        {"editability/relative": -1.0}, world=False
    )
