import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pti_pipeline import metrics


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 1, (1, 16, 16, 3))
    return picture, (picture + 0.1 * rng.standard_normal(picture.shape)).clip(0, 1)


def test_identical_pictures_are_perfect(pair):
    assert metrics.ssim(pair[0], pair[0]) == pytest.approx(1.0)
    assert metrics.psnr(pair[0], pair[0]) == 100.0


def test_values_are_scikit_images(pair):
    a, b = pair
    assert metrics.psnr(b, a) == pytest.approx(peak_signal_noise_ratio(a[0], b[0], data_range=1.0))
    assert metrics.ssim(b, a) == pytest.approx(
        structural_similarity(a[0], b[0], data_range=1.0, channel_axis=-1)
    )


def test_position_diversity_is_one_at_the_base_and_zero_when_all_stand_alike():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1, (200, 2))
    assert metrics.position_diversity(places, places) == pytest.approx(1.0)
    half = metrics.position_diversity(0.5 * places, places)
    assert half == pytest.approx(1 / 16)


def test_relative_gain():
    assert metrics.relative_gain(0.3, 0.4) == pytest.approx(0.25)
