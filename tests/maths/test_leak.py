import numpy as np
import pytest
from calibration import alarms, copying_found, distances, positions, words
from scipy.stats import binom, mannwhitneyu
from skimage.draw import disk
from skimage.measure import centroid

from pti_pipeline import leak


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def most(trials, rate, certainty=0.99):
    """Largest share that a true rate gives, but for one chance in a hundred."""
    return binom.ppf(certainty, trials, rate) / trials


def test_auc_counts_pairs_and_ties():
    tuned, reference = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    pairs = [(t < r) + 0.5 * (t == r) for t in tuned for r in reference]
    assert leak.auc(tuned, reference) == pytest.approx(np.mean(pairs))


def test_identical_inputs_give_exactly_a_half(rng):
    for n in (8, 63, 256):
        same = rng.uniform(0, 1, n).round(1)
        assert leak.auc(same, same) == 0.5
        verdict = leak.certified(same, same)
        assert verdict.words == "certified free" and verdict.upper == 0.5


def test_p_value_is_scipys(rng):
    tuned, reference = rng.uniform(0, 1, 40), rng.uniform(0.2, 1.2, 50)
    expected = mannwhitneyu(tuned, reference, alternative="less").pvalue
    assert leak.p_value(tuned, reference) == pytest.approx(expected)


def test_interval_holds_the_estimate_and_narrows_with_samples(rng):
    widths = []
    for n in (40, 400):
        tuned, reference = rng.uniform(0, 1, n), rng.uniform(0.1, 1.1, n)
        low, high = leak.auc_interval(tuned, reference, np.random.default_rng(1))
        assert low < leak.auc(tuned, reference) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_interval_draws_pairs_together(rng):
    tuned, reference = rng.uniform(0, 1, 30), rng.uniform(0, 1, 30)
    rows = np.random.default_rng(1).integers(0, 30, (50, 30))
    drawn = [leak.auc(tuned[r], reference[r]) for r in rows]
    expected = np.quantile(drawn, [0.025, 0.975])
    found = leak.auc_interval(tuned, reference, np.random.default_rng(1), 50)
    assert found == pytest.approx(tuple(expected))


@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_the_fast_upper_bound_is_the_bootstraps(rng, n, shared):
    both = rng.standard_normal(n)
    pair = [shared * both + (1 - shared) * rng.standard_normal(n) for _ in range(2)]
    _, upper = leak.auc_interval(*pair, np.random.default_rng(1), 4000, (0.05, 0.95))
    assert leak.certified(*pair).upper == pytest.approx(upper, abs=0.006)


def test_pairs_of_equal_seed_make_the_error_smaller(rng):
    both = rng.standard_normal(400)
    pair = [both + 0.3 * rng.standard_normal(400) for _ in range(2)]
    alone = [rng.permutation(v) for v in pair]
    assert leak.auc_error(*pair) < 0.5 * leak.auc_error(*alone)


@pytest.mark.parametrize("images", [4, 8])
def test_false_alarms_and_power_at_256_samples(images):
    trials = 500  # a true rate of 9 % would pass in 2 trials of 100
    assert alarms(trials, 256, images, 0.0) <= most(trials, 0.05)
    assert alarms(200, 256, images, 0.2) >= 0.85
    assert alarms(200, 256, images, 0.4) >= 0.99
    assert 0.2 < alarms(200, 256, images, 0.1) < 0.85  # it does not see everything


def test_1024_samples_certify_the_absence_of_copies_and_never_their_presence():
    free, below = words(100, 1024, 6, 0.0)
    assert free["certified free"] >= 0.85 and below >= 0.9
    copied, below = words(100, 1024, 6, 0.2)
    assert copied == {"detected": 1.0} and below == 0


def test_64_samples_seldom_certify():
    free, _ = words(200, 64, 6, 0.0)
    assert free["certified free"] < 0.35 < free["not certified"]


def test_a_verdict_says_how_many_samples_a_certificate_needs():
    pair = distances(3, 64, 6, 0.0, "needed")
    verdict = leak.certified(*pair)
    assert verdict.words == "not certified" and verdict.needed > 500
    assert leak.samples_needed(0.5) == leak.samples_needed(0.4) == 571
    assert leak.samples_needed(0.55) is None
    free, _ = words(100, leak.samples_needed(0.5), 6, 0.0)
    assert free["not certified"] <= most(100, 0.1)


def test_centring_is_not_copying_though_the_auc_takes_it_for_one():
    copying, auc = copying_found(100, 128, 6, 0.0, centred=True)
    assert auc > 0.9
    assert copying <= most(100, 0.05)


def test_the_layout_sets_find_copying():
    assert copying_found(30, 128, 4, 0.6)[0] > 0.7
    assert copying_found(100, 64, 4, 0.0)[0] <= most(100, 0.05)


def test_copying_p_counts_the_sets_that_are_as_near():
    samples, training = np.zeros((3, 2)), np.array([[3.0, 0.0]])
    sets = [np.array([[d, 0.0]]) for d in (1.0, 3.0, 4.0, 5.0)]
    assert leak.copying_p(samples, training, sets.__getitem__, 4) == (1 + 2) / 5


def drawn_at(place, side=48):
    picture = np.zeros((side, side))
    picture[disk(place, 5, shape=picture.shape)] = 1
    return picture


def test_a_copy_shifted_by_a_pixel_is_still_a_copy(rng):
    places = rng.uniform(8, 40, (6, 2))
    others = rng.uniform(8, 40, (128, 2))
    pictures = [drawn_at(p) for p in places]
    shifted = [np.roll(pictures[i % 6], 1, axis=i % 2) for i in range(128)]
    training, copies, free = (
        np.array([centroid(p) for p in some])
        for some in (pictures, shifted, [drawn_at(p) for p in others])
    )
    scaled = [leak.whiten(part, free) for part in (copies, free, training)]
    near, far = leak.nearest(scaled[0], scaled[2]), leak.nearest(scaled[1], scaled[2])
    assert leak.certified(near, far).words == "detected" and leak.auc(near, far) > 0.9
    assert leak.memorised(scaled[0], scaled[2]) == 1.0
    assert leak.memorised(scaled[1], scaled[2]) < 0.5

    def draw(k):
        generator = np.random.default_rng(k)
        return leak.whiten(generator.uniform(8, 40, (6, 2)), free)

    assert leak.copying_p(scaled[0], scaled[2], draw) == pytest.approx(0.005)


def test_memories_are_those_much_nearer_to_one_picture():
    training = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    samples = np.array([[0.2, 0.0], [0.3, 0.0], [0.5, 0.0]])  # ratios 0.25, 0.43 and 1
    assert leak.memorised(samples, training) == pytest.approx(1 / 3)


def test_pooling_experiments_that_share_a_reference_is_the_test_on_all_samples(rng):
    tuned = [rng.uniform(0, 0.9, 100) for _ in range(3)]
    reference = rng.uniform(0, 1, 100)
    found = leak.pooled_p([leak.p_value(t, reference) for t in tuned])
    assert found == pytest.approx(leak.p_value(np.concatenate(tuned), reference), rel=0.05)
    assert leak.pooled_p([0.03]) == pytest.approx(0.03)


def test_the_pooled_error_is_that_of_repeated_draws(rng):
    means, errors = [], []
    for _ in range(400):
        reference = rng.uniform(0, 1, 50)
        tuned = [rng.uniform(0, 1, 50) for _ in range(4)]
        means.append(np.mean([leak.auc(t, reference) for t in tuned]))
        errors.append(leak.pooled_error([leak.auc_error(t, reference) for t in tuned]))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)
    assert leak.pooled_error([0.05]) == pytest.approx(0.05)


def test_whitened_reference_has_unit_covariance(rng):
    reference = rng.standard_normal((500, 2)) @ np.array([[3.0, 1.0], [0.0, 0.2]])
    np.testing.assert_allclose(np.cov(leak.whiten(reference, reference).T), np.eye(2), atol=1e-9)


def test_nearest_is_zero_on_a_training_layout():
    training = np.array([[0.1, 0.2], [0.8, 0.9]])
    np.testing.assert_allclose(leak.nearest(training, training), 0)


@pytest.mark.slow
@pytest.mark.parametrize("images", [4, 8])
def test_calibration_over_many_trials(images):
    assert alarms(4000, 256, images, 0.0) <= most(4000, 0.05)
    assert alarms(2000, 256, images, 0.2) >= 0.9
    assert words(1000, 1024, images, 0.0)[0]["certified free"] >= 0.9
    assert words(1000, 1024, images, 0.2)[1] == 0


def test_positions_are_copied_as_often_as_asked(rng):
    training = np.array([[0.5, 0.5]])
    found = positions(rng, 4000, training, 0.3)
    inside = np.mean(np.abs(found - 0.5).max(1) < 0.1)
    assert inside == pytest.approx(0.3 * 0.955**2 + 0.7 * 0.04, abs=0.03)
