"""Choosing among tunings around several pivots."""

from types import SimpleNamespace

import pytest

from pti_pipeline.steps.select import _choose


def tuned(pivot, distance, appearance, p):
    metrics = {
        "train/lr": 0.001,
        "distance/delta_norm": distance,
        "reconstruction/bank_gain": 0.1,
        "reconstruction/appearance": appearance,
        "editability/relative": 1.0,
        "leak/pivot_p": p,
    }
    return SimpleNamespace(metrics=metrics, tags={"pti.pivot": pivot})


SOUND = [tuned("a", 1.0, 0.5, 0.6), tuned("a", 2.0, 0.6, 0.5), tuned("a", 4.0, 0.9, 0.001)]


@pytest.mark.parametrize(
    ("others", "index"),
    [
        ([], 1),
        ([tuned("b", 1.5, 0.7, 0.4)], 3),  # a better limit around another pivot
        ([tuned("b", 1.5, 0.55, 0.4)], 1),
        ([tuned("b", 1.5, 0.95, 0.001)], 1),  # it copies from the start: of no use
        ([tuned("b", 1.5, float("nan"), 0.4)], 1),
    ],
)
def test_the_best_of_what_each_pivots_limit_gives(others, index):
    choice = _choose([*SOUND, *others], "finetune")
    assert choice.index == index
    assert ("2 pivots" in choice.reason) == bool(others)
