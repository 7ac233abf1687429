import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from pti_pipeline import leak


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sampled(rng, n, training, copied=0.0):
    """Positions at random in the unit square; a share of them copies of the training's."""
    found = rng.uniform(0, 1, (n, 2))
    rows = rng.random(n) < copied
    near = training[rng.integers(0, len(training), rows.sum())]
    found[rows] = near + 0.02 * rng.standard_normal((rows.sum(), 2))
    return found


def test_auc_counts_pairs_and_ties():
    tuned, reference = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    pairs = [(t < r) + 0.5 * (t == r) for t in tuned for r in reference]
    assert leak.auc(tuned, reference) == pytest.approx(np.mean(pairs))
    assert leak.auc(tuned, tuned) == 0.5


def test_p_value_is_scipys(rng):
    tuned, reference = rng.uniform(0, 1, 40), rng.uniform(0.2, 1.2, 50)
    expected = mannwhitneyu(tuned, reference, alternative="less").pvalue
    assert leak.p_value(tuned, reference) == pytest.approx(expected)


def test_copying_is_found_and_its_absence_is_not(rng):
    training = rng.uniform(0, 1, (6, 2))
    reference = leak.nearest(sampled(rng, 256, training), training)
    copied = leak.nearest(sampled(rng, 256, training, 0.4), training)
    assert leak.auc(copied, reference) > 0.6
    assert leak.p_value(copied, reference) < 0.001
    alarms = [
        leak.p_value(leak.nearest(sampled(rng, 64, training), training), reference) < 0.05
        for _ in range(200)
    ]
    assert np.mean(alarms) < 0.15  # 5 % expected against a random reference, within its own error


def test_interval_holds_the_estimate_and_narrows_with_samples(rng):
    widths = []
    for n in (40, 400):
        tuned, reference = rng.uniform(0, 1, n), rng.uniform(0.1, 1.1, n)
        low, high = leak.auc_interval(tuned, reference, np.random.default_rng(1))
        assert low < leak.auc(tuned, reference) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_whitened_reference_has_unit_covariance(rng):
    reference = rng.standard_normal((500, 2)) @ np.array([[3.0, 1.0], [0.0, 0.2]])
    np.testing.assert_allclose(np.cov(leak.whiten(reference, reference).T), np.eye(2), atol=1e-9)


def test_nearest_is_zero_on_a_training_layout():
    training = np.array([[0.1, 0.2], [0.8, 0.9]])
    np.testing.assert_allclose(leak.nearest(training, training), 0)
