"""Which runs of a sweep of tunings are sampled."""

from dataclasses import replace

import pytest

from pti_pipeline.steps.bracketed import bracketed
from pti_pipeline.tracking.find import Found

RATES = ("0.0001", "0.0003", "0.001", "0.003", "0.01")


def sweep(gains=(0.0, 0.0, 0.1, 0.6, 1.0), seeds=("0", "1")):
    return [
        Found(
            f"{lr}/{seed}",
            "tuning",
            "FINISHED",
            {"lr": lr, "seed": seed, "steps": "10", "rank": "4", "regularizer": "none"},
            {"distance/delta_norm": 3.0**i + 0.1 * int(seed), "twins/position": gain},
            {"pti.step": "finetune"},
        )
        for i, (lr, gain) in enumerate(zip(RATES, gains, strict=True))
        for seed in seeds
    ]


def test_the_places_around_the_start_are_taken_with_all_their_seeds():
    taken, others = bracketed(sweep(), 2)
    assert {run.params["lr"] for run in taken} == {"0.0003", "0.001"}
    assert len(taken) == 4 and len(others) == 6


@pytest.mark.parametrize("count", [0, 5, 8])
def test_few_places_or_no_bound_take_all(count):
    assert len(bracketed(sweep(), count)[0]) == 10


def test_where_twins_say_nothing_everything_is_sampled():
    runs = sweep()
    runs[3] = replace(runs[3], metrics={"distance/delta_norm": 1.0})
    assert bracketed(runs, 2) == (runs, [])
    inversions = [replace(run, tags={"pti.step": "invert"}) for run in sweep()]
    assert bracketed(inversions, 2) == (inversions, [])


@pytest.mark.parametrize("name", ["rank", "reg_timesteps", "reg_every", "until_distance"])
def test_values_of_a_setting_have_limits_of_their_own_and_are_all_sampled(name):
    runs = sweep()
    runs[0] = replace(runs[0], params={**runs[0].params, name: "other"})
    assert bracketed(runs, 2) == (runs, [])
