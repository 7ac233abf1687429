"""Every setting takes the values of its range, ends included, and tells which it does not take."""

import math
import re

import pytest

from pti_pipeline.errors import UsageError
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import FinetuneSettings, InvertSettings, SampleSettings

WHOLE = [
    (InvertSettings, "steps", 1, 1_000_000),
    (InvertSettings, "batch_size", 1, 4096),
    (InvertSettings, "micro_batch", 0, 4096),
    (InvertSettings, "vectors", 1, 32),
    (InvertSettings, "seed", 0, 2**32 - 1),
    (FinetuneSettings, "rank", 1, 4096),
    (FinetuneSettings, "reg_every", 1, 1_000_000),
    (FinetuneSettings, "reg_bank", 0, 100_000),
    (WatchSettings, "sample_every", 0, 1_000_000),
    (WatchSettings, "probes", 0, 1000),
    (SampleSettings, "steps", 1, 1000),
]
"""Settings that are integers, with their least and their largest value."""


def refused(told):
    return pytest.raises(UsageError, match=rf"^error\[E\d+\]: {told}")


@pytest.mark.parametrize(("kind", "name", "least", "most"), WHOLE)
def test_integers_within_their_range(kind, name, least, most):
    for value in (least, most):
        assert getattr(kind(**{name: value}), name) == value
    shown = "sampling_steps" if kind is SampleSettings else name
    for value in (least - 1, most + 1):
        told = rf"{shown} is {value}\. Hint: use an integer from {least} to {most}\."
        with refused(told) as caught:
            kind(**{name: value})
        assert (caught.value.code, caught.value.exit_code) == ("E202", 2)


@pytest.mark.parametrize("name", ["alpha", "kappa"])
def test_numbers_above_zero(name):
    for value in (0, -1.0, math.nan, math.inf):
        with refused(f"{name} is {value}. Hint: use a number above 0") as caught:
            FinetuneSettings(**{name: value})
        assert caught.value.code == "E202"
    assert getattr(FinetuneSettings(**{name: 0.1}), name) == 0.1


@pytest.mark.parametrize("name", ["clip", "until_distance", "reg_weight", "weight_decay"])
def test_numbers_from_zero(name):
    for value in (-0.1, math.nan, math.inf):
        with refused(f"{name} is {value}. Hint: use a number from 0, which is off") as caught:
            FinetuneSettings(**{name: value})
        assert caught.value.code == "E202"
    for value in (0, 0.1):
        assert getattr(FinetuneSettings(**{name: value}), name) == value


def test_learning_rates():
    for value in (0, -1.0, math.nan, math.inf):
        with refused(f"{value} is no learning rate. Hint: use a number above 0") as caught:
            InvertSettings(value)
        assert caught.value.code == "E201"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("at_distance", ["stop", "project"]),
        ("optimizer", ["adam", "adam-8bit", "prodigy"]),
        ("reg_latents", ["base", "training"]),
        ("reg_timesteps", ["even", "noisy"]),
        ("rslora", ["no", "yes"]),
        ("text_encoder", ["no", "yes"]),
        ("dora", ["no", "yes"]),
    ],
)
def test_words(name, known):
    for word in known:
        assert getattr(FinetuneSettings(**{name: word}), name) == word
    told = f"{name} is 'other'. Hint: use one of {', '.join(known)}"
    with refused(re.escape(told) + r"\.$") as caught:
        FinetuneSettings(**{name: "other"})
    assert caught.value.code == "E202"


@pytest.mark.parametrize("text", ["", "to_k,", "to_k, to_v", "to_k,to_k", ".*", "a$b", "to_k."])
def test_targets_are_names_or_endings(text):
    for good in ("attention", "attention+feed-forward", "to_k", "ff.net.2,to_out.0"):
        assert FinetuneSettings(targets=good).targets == good
    with refused("targets is .*Hint: use attention, attention.feed-forward, or endings") as caught:
        FinetuneSettings(targets=text)
    assert caught.value.code == "E202"


@pytest.mark.parametrize(
    ("name", "value"),
    [("at_distance", "project"), ("regularizer", "weight-ball"), ("regularizer", "timestep-rank")],
)
def test_a_dora_is_not_held_as_what_is_linear(name, value):
    with refused(f"dora is 'yes' and {name} is '{value}'. Hint: use one without the other"):
        FinetuneSettings(dora="yes", until_distance=1.0, **{name: value})
    FinetuneSettings(dora="no", until_distance=1.0, **{name: value})


def test_a_learned_vectors_norm():
    for word in ("free", "vocabulary"):
        assert InvertSettings(norm=word).norm == word
    with refused("norm is 'long'. Hint: use one of free, vocabulary"):
        InvertSettings(norm="long")
    with refused("norm is 'vocabulary' and at_distance is 'project'. Hint: use at_distance stop"):
        InvertSettings(norm="vocabulary", at_distance="project")


def test_an_average():
    for value in (0, 0.99):
        assert FinetuneSettings(ema=value).ema == value
    for value in (-0.1, 1, math.nan, math.inf):
        with refused(f"ema is {value}. Hint: use 0, which is off, or less than 1") as caught:
            FinetuneSettings(ema=value)
        assert caught.value.code == "E202"


def test_guidance():
    for value in (1, 100):
        assert SampleSettings(guidance=value).guidance == value
    for value in (0.5, 101, math.nan):
        with refused(f"guidance is {value}. Hint: use a number from 1 to 100") as caught:
            SampleSettings(guidance=value)
        assert caught.value.code == "E202"


def test_a_ball_of_weights_needs_its_radius():
    with refused("weight-ball has no radius. Hint: give it as --until-distance") as caught:
        FinetuneSettings(regularizer="weight-ball")
    assert caught.value.code == "E232"
    assert FinetuneSettings(regularizer="weight-ball", until_distance=1).until_distance == 1


def test_ranks_by_timestep_need_two():
    with refused("timestep-rank has no rank to spare. Hint: use --rank=2 or more") as caught:
        FinetuneSettings(regularizer="timestep-rank", rank=1)
    assert caught.value.code == "E232"
    assert FinetuneSettings(regularizer="timestep-rank", rank=2).rank == 2
