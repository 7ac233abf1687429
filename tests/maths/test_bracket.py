import numpy as np
import pytest

from pti_pipeline.choosing.bracket import deciding

FAR = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]


@pytest.mark.parametrize(
    ("gains", "count", "found"),
    [
        ([0, 0, 0, 0, 0.5, 0.9, 1.0], 3, [3, 4, 5]),  # it starts between the fourth and fifth
        ([0, 0, 0, 0.5, 0.6, 0.9, 1.0], 4, [1, 2, 3, 4]),
        ([0, 0, 0, 0, 0, 0, 0], 2, [5, 6]),  # nowhere: the farthest
        ([0.5, 0.6, 0.7, 0.8, 0.9, 1, 1], 2, [0, 1]),  # from the start
        ([0, 0, 0, 0, 0, 0, 1], 2, [5, 6]),
    ],
)
def test_places_around_the_start_are_taken(gains, count, found):
    assert deciding(FAR, gains, count) == sorted(found)


@pytest.mark.parametrize("count", [0, 7, 9])
def test_all_are_taken_where_few_or_where_told(count):
    assert deciding(FAR, [0] * 7, count) == list(range(7))


def test_the_order_of_places_does_not_matter_and_one_lies_beyond():
    turned = np.random.default_rng(0).permutation(7)
    gains = np.array([0, 0, 0.05, 0.15, 0.6, 0.9, 1.0])
    found = deciding(list(np.array(FAR)[turned]), list(gains[turned]), 2)
    assert [FAR[turned[i]] for i in found] == [4.0, 8.0]
