"""The benchmarks' own arithmetic, and the table in the docs."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import RESULTS, table
from benchmarks.timing import Row, interleaved, ratio

ROOT = Path(__file__).parents[2]


def test_the_docs_show_the_measured_table():
    rows = json.loads(RESULTS.read_text("utf-8"))
    assert table(rows) in (ROOT / "docs/explanation/sweeps.md").read_text("utf-8")
    for row in rows:
        assert {"name", "ratio", "goal", "spread", "runs", "machine", "commit"} <= set(row)


def test_cases_run_in_turns():
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = interleaved(cases, runs=3, warm=1)
    assert order == list("abababab")
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3}


def test_ratios_are_medians_of_pairs():
    assert ratio([2, 4, 60, 8, 10], [1, 2, 3, 4, 5]) == pytest.approx((2.0, 4.5))


def test_gates_hold_ratios_from_below_and_shares_from_above():
    assert Row("r", 2.0, 1.5, 3.0, 0.1, 5).reached
    assert not Row("r", 1.4, 1.5, 3.0, 0.1, 5).reached
    assert Row("r", 0.01, 0.02, 0.01, 0.1, 5, share=True).reached
    assert not Row("r", 0.03, 0.02, 0.01, 0.1, 5, share=True).reached
