"""Malformed inputs end in one line; the whole corpus is tried by ``python -m faults.inputs``."""

import click
import pytest

from faults import inputs
from faults.files import files
from faults.inputs import attempt, measure
from faults.parameters import Case, parameters
from faults.run_ids import run_ids
from faults.stage import staged
from pti_pipeline.cli.group import Group


def test_malformed_parameters_are_told_before_anything_is_loaded(store, monkeypatch):
    monkeypatch.setenv("PTI_DEBUG", "no")
    wrong = [each for case in parameters() if not (each := attempt(case)).expected]
    assert not wrong, wrong[0]


@pytest.mark.slow  # make faults tries all of them
def test_a_part_of_the_inputs_that_need_a_store_or_a_model():
    with staged() as stage:
        before = stage.count()
        cases = [*run_ids(stage), *files(stage)]
        assert len(cases) > 300
        wrong = [each for case in cases[::29] if not (each := attempt(case)).expected]
        assert not wrong, wrong[0]
        assert stage.count() == before


def test_what_is_not_refused_as_expected_counts(store):
    refused = attempt(Case(("invert", "--lr=abc"), "E202"))
    assert not refused.expected and not refused.traceback
    taken = attempt(Case(("world", "render", "--count=1", "--folder=drawn"), "E217"))
    assert not taken.expected


def test_an_error_of_our_own_counts_as_a_traceback(store, monkeypatch):
    broken = click.Command("x", callback=lambda: 1 / 0)
    monkeypatch.setattr(inputs, "main", Group(commands={"x": broken}))
    outcome = attempt(Case(("x",), "E201"))
    assert outcome.traceback and not outcome.expected and "E999" in outcome.output


@pytest.mark.slow
def test_all_malformed_inputs():
    counts = measure()
    assert counts.pop("inputs") >= 1000
    assert set(counts.values()) == {0}
