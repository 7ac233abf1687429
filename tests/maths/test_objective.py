"""Every choice of the objective takes the values of its range, and tells which it does not take."""

import math
import re

import pytest

from pti_pipeline.errors import UsageError
from pti_pipeline.objective import PLAIN, Objective, objective_of
from pti_pipeline.settings import FinetuneSettings, InvertSettings
from pti_pipeline.values import parse_vary

NUMBERS = [
    ("min_snr_gamma", 0.01, 1000),
    ("offset_noise", 0, 1),
    ("timestep_bias", -3, 3),
    ("background", 0, 1),
]
"""Names, with their least and their largest value."""


def refused(told):
    return pytest.raises(UsageError, match=rf"^error\[E202\]: {re.escape(told)}")


@pytest.mark.parametrize(("name", "least", "most"), NUMBERS)
def test_numbers_within_their_range(name, least, most):
    for value in (least, most):
        assert getattr(InvertSettings(**{name: value}), name) == value
    for value in (least - 0.001, most + 0.001, math.nan, math.inf):
        told = f"{name} is {value}. Hint: use a number from {least:g} to {most:g}"
        with refused(told):
            FinetuneSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "known"),
    [("weighting", ["none", "min-snr", "debiased"]), ("flip", ["no", "yes"])],
)
def test_words(name, known):
    for word in known:
        assert getattr(Objective(**{name: word}), name) == word
    with refused(f"{name} is 'other'. Hint: use one of {', '.join(known)}"):
        Objective(**{name: "other"})


def test_crops():
    assert (Objective(crops=1).crops, Objective(crops=16).crops) == (1, 16)
    for value in (0, 17):
        with refused(f"crops is {value}. Hint: use an integer from 1 to 16"):
            Objective(crops=value)


@pytest.mark.parametrize("text", ["", "0", "0,x", "0.5,0.5", "0.8,0.2", "-0.1,1", "0,1.1", "0,nan"])
def test_ranges_of_timesteps(text):
    with refused(f"timestep_range is '{text}'. Hint: use two numbers from 0 to 1"):
        Objective(timestep_range=text)
    assert Objective(timestep_range=" 0.2, 0.8").timestep_span == (0.2, 0.8)


@pytest.mark.parametrize("kind", [InvertSettings, FinetuneSettings])
def test_a_training_descends_the_plain_loss_unless_told(kind):
    assert Objective(**objective_of(kind())) == PLAIN


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("weighting:none,min-snr", ("weighting", ("none", "min-snr"))),
        ("crops:1,4", ("crops", (1, 4))),
        ("flip:no,yes", ("flip", ("no", "yes"))),
        ("min_snr_gamma:1,5", ("min_snr_gamma", (1.0, 5.0))),
        ("offset_noise:0,0.1", ("offset_noise", (0.0, 0.1))),
        ("timestep_bias:-1,0,1", ("timestep_bias", (-1.0, 0.0, 1.0))),
    ],
)
def test_sweeps_vary_it(text, values):
    assert parse_vary(text, InvertSettings) == values
