import math

import pytest

from pti_pipeline.choosing.rivals import Rival, prefer

USUAL = Rival("no regularizer", 12.0, 0.70, 0.90, True)


@pytest.mark.parametrize(
    ("other", "taken", "why"),
    [
        (Rival("locality", 22.0, 0.73, 0.90, True), True, "reconstructs better"),
        (Rival("locality", 22.0, 0.73, 0.86, True), True, "reconstructs better"),
        (Rival("locality", 22.0, 0.73, 0.85, True), False, "only 94% of the editability"),
        (Rival("locality", 22.0, 0.70, 0.94, True), False, "no better"),
        (Rival("locality", 22.0, 0.70, 0.95, True), True, "no regularizer keeps only 95% of"),
        (Rival("locality", 22.0, 0.67, 1.80, True), True, "no regularizer keeps only 50% of"),
        (Rival("locality", 22.0, 0.66, 1.80, True), False, "no better"),
        (Rival("locality", 22.0, math.nan, 0.95, True), False, "no better"),
        (Rival("locality", 22.0, 0.90, 0.90, False), False, "locality leaks"),
        (Rival("locality", 22.0, 0.73, math.nan, True), True, "reconstructs better"),
    ],
)
def test_the_other_must_reconstruct_better_and_leak_no_more(other, taken, why):
    kept, reason = prefer(USUAL, other)
    assert kept == taken and why in reason


def test_a_usual_one_that_leaks_loses():
    usual = Rival("no regularizer", 12.0, 0.9, 0.9, False)
    assert prefer(usual, Rival("locality", 3.0, 0.6, 0.5, True)) == (
        True,
        "no regularizer leaks or collapses at every distance",
    )
