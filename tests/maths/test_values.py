"""Lists of values as a user writes them: what is read, and what is told of those that are none."""

import math
import re

import pytest

from pti_pipeline.errors import UsageError
from pti_pipeline.settings import FinetuneSettings, InvertSettings
from pti_pipeline.values import (
    experiments,
    halved,
    label,
    own_number,
    parse_forms,
    parse_learning_rates,
    parse_pivots,
    parse_seeds,
    parse_vary,
    parse_weights,
    shown,
)

THOUSAND = ",".join(map(str, range(1, 1001)))


def parse_varied(text):
    return parse_vary(text, FinetuneSettings)


@pytest.mark.parametrize(
    ("parse", "text", "values"),
    [
        (parse_learning_rates, "0.001, 3e-3", (0.001, 0.003)),
        (parse_seeds, "0,7", (0, 7)),
        (parse_seeds, THOUSAND, tuple(range(1, 1001))),
        (parse_weights, "1, -0.7", (1.0, -0.7)),
        (parse_weights, "", ()),
        (parse_varied, "rank:4,8", ("rank", (4, 8))),
        (parse_varied, "alpha:4,0.5", ("alpha", (4.0, 0.5))),
        (parse_varied, "", ("", ())),
        (parse_pivots, " a1 ,b2", ("a1", "b2")),
        (parse_forms, "kohya, merged", ("kohya", "merged")),
    ],
)
def test_values_are_read_in_their_order(parse, text, values):
    assert parse(text) == values


@pytest.mark.parametrize("text", ["abc", "", "0.1,,0.2", "0", "-1", "nan", "inf", "0.1;touch X"])
def test_bad_learning_rates_are_named(text):
    with pytest.raises(UsageError) as caught:
        parse_learning_rates(text)
    assert caught.value.code == "E201"
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (parse_learning_rates, "1, abc", "[E201]: 'abc' is no learning rate. Hint: write numbers"),
        (parse_learning_rates, "1,1.0", "[E202]: learning rate 1.0 is there twice. Hint: name"),
        (parse_seeds, "0.5", "[E202]: '0.5' are no seeds. Hint: write integers"),
        (parse_seeds, "1,-1", "[E202]: seed is -1."),
        (parse_seeds, "2,7,2", "[E202]: seed 2 is there twice. Hint: name each value once"),
        (parse_seeds, f"{THOUSAND},0", "[E202]: seed has 1001 values. Hint: name at most 1000"),
        (parse_weights, "x", "[E253]: 'x' are no weights. Hint: write numbers"),
        (parse_weights, "1,nan", "[E253]: '1,nan' are no weights."),
        (parse_weights, "1,", "[E253]: '1,' are no weights."),
        (parse_varied, "rank", "[E218]: 'rank' varies nothing that this stage has. Hint: write"),
        (parse_varied, "x:1", "steps, batch_size, clip, until_distance, "),
        (parse_varied, "rank:4,x", "[E218]: '4,x' are no values of rank. Hint: write numbers"),
        (parse_varied, "rank:4:8", "[E218]: '4:8' are no values of rank."),
        (parse_varied, "rank:4,4", "[E202]: rank 4 is there twice."),
        (parse_pivots, "a,a ", "[E202]: pivot a is there twice."),
        (parse_forms, "kohya,x", "[E240]: 'x' is no form. Hint: use some of diffusers,embedding,"),
        (parse_forms, "kohya,kohya", "[E202]: form kohya is there twice."),
    ],
)
def test_what_is_wrong_is_told(parse, text, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("at_distance:stop,project", "stop_at_leak:0,1", "checkpointing:0,1"),
        *("pivot:a,b", "lr:0.1,0.2", "seed:1,2"),
    ],
)
def test_settings_that_have_their_own_option_or_are_no_numbers_are_not_varied(text):
    with pytest.raises(UsageError, match="varies nothing"):
        parse_vary(text, FinetuneSettings)


def test_places_along_a_curve():
    assert halved(1000, 7) == (16, 31, 62, 125, 250, 500, 1000)
    assert halved(3, 7) == (1, 2, 3)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1.5", "²"])
def test_variables_of_our_own_that_somebody_else_set(monkeypatch, text):
    monkeypatch.setenv("PTI_PLACES", text)
    told = f"[E261]: the environment variable PTI_PLACES is '{text}'. Hint: unset it"
    with pytest.raises(UsageError, match=re.escape(told)):
        own_number("PTI_PLACES", 1)
    for number in (1, 3):
        monkeypatch.setenv("PTI_PLACES", str(number))
        assert own_number("PTI_PLACES", 1) == number
    monkeypatch.delenv("PTI_PLACES")
    assert own_number("PTI_PLACES", 1) == 1


def test_a_sweep_is_every_combination_and_learning_rates_run_fastest():
    common = FinetuneSettings(steps=7)
    found = experiments((0.1, 0.2), (3, 4), ("rank", (1, 2)), common)
    assert [(s.lr, s.seed, s.rank) for s in found] == [
        (lr, seed, rank) for rank in (1, 2) for seed in (3, 4) for lr in (0.1, 0.2)
    ]
    assert {s.steps for s in found} == {7}


def test_a_sweep_has_at_most_a_thousand_experiments():
    lrs = parse_learning_rates(",".join(f"{i}e-6" for i in range(1, 501)))
    assert len(experiments(lrs, (0, 1), ("", ()), InvertSettings())) == 1000
    told = r"\[E202\]: these are 1500 experiments\. Hint: sweep at most 1000"
    for seeds, values in (((0, 1, 2), ()), ((0,), (1, 2, 3))):
        with pytest.raises(UsageError, match=told):
            experiments(lrs, seeds, ("vectors", values), InvertSettings())


def test_labels_name_what_sets_an_experiment_apart():
    assert label(InvertSettings()) == "lr=0.005 seed=0"
    held = FinetuneSettings(regularizer="locality", pivot="0123456789")
    assert label(held, "rank") == "lr=0.0003 seed=0 locality rank=4"
    assert label(held, "pivot") == "lr=0.0003 seed=0 locality pivot=01234567"
    ball = FinetuneSettings(regularizer="weight-ball", until_distance=1)
    assert label(ball, "regularizer") == "lr=0.0003 seed=0 regularizer=weight-ball"
    assert (shown("a"), shown(3.0), shown(0.25), shown(math.pi)) == ("a", "3", "0.25", "3.14159")
