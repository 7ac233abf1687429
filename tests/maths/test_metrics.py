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


@pytest.fixture
def masked():
    """Upright stripes of one pixel in a square, on gray, and the square's mask; (1, 32, 32, 3)."""
    picture = np.full((1, 32, 32, 3), 0.5)
    mask = np.zeros((1, 32, 32), bool)
    mask[:, 8:24, 8:24] = True
    picture[:, 8:24, 8:24] = (np.arange(16) % 2)[:, None]
    return picture, mask


def test_a_perfect_copy_of_the_subject_is_perfect_whatever_is_around(masked):
    picture, mask = masked
    other = picture.copy()
    other[:, :4] = 1
    assert metrics.psnr(other, picture, mask) == 100
    assert metrics.ssim(other, picture, mask) == pytest.approx(1)
    assert metrics.psnr(other, picture) < 100 and metrics.ssim(other, picture) < 1


def test_a_copy_shifted_by_one_pixel_has_every_stripe_wrong(masked):
    picture, mask = masked
    inner = np.zeros_like(mask)
    inner[:, 8:24, 9:24] = True  # all of these pixels turn from black to white or back
    shifted = np.roll(picture, 1, axis=2)
    assert metrics.psnr(shifted, picture, inner) == pytest.approx(0)
    deep = np.zeros_like(mask)
    deep[:, 12:20, 12:20] = True  # whole windows of stripes, against their negative
    x = np.tile(np.arange(7) % 2, 7).astype(float)
    covariance, variance = np.cov(x, 1 - x)[0, 1], x.var(ddof=1)
    c1, c2 = 0.01**2, 0.03**2
    means = x.mean() * (1 - x.mean())
    expected = (2 * means + c1) * (2 * covariance + c2)
    expected /= (x.mean() ** 2 + (1 - x.mean()) ** 2 + c1) * (2 * variance + c2)
    assert metrics.ssim(shifted, picture, deep) == pytest.approx(expected)
    assert metrics.ssim(shifted, picture, deep) < -0.9


def test_pictures_with_empty_masks_are_left_out(masked):
    picture, mask = masked
    pair, masks = np.concatenate([picture, 1 - picture]), np.concatenate([mask, ~mask & False])
    assert metrics.psnr(pair, np.concatenate([picture] * 2), masks) == 100
    assert metrics.ssim(pair, np.concatenate([picture] * 2), masks) == pytest.approx(1)
    assert np.isnan(metrics.psnr(picture, picture, mask & False))
    assert np.isnan(metrics.ssim(picture, picture, mask & False))


def test_oftener_is_the_exact_paired_test():
    own, other = np.zeros(20, bool), np.zeros(20, bool)
    assert metrics.oftener(own, other) == 1
    own[:8] = other[15:] = True
    own[15:17] = True  # 8 more, 3 less: the tail of 11 fair tosses from 8
    assert metrics.oftener(own, other) == pytest.approx((165 + 55 + 11 + 1) / 2**11)
    assert metrics.oftener(other, own) > 0.9
