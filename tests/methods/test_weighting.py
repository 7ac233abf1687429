"""Weights by timestep, against the closed forms of their papers and diffusers' signal-to-noise."""

import pytest
import torch
from diffusers.training_utils import compute_snr

from pti_pipeline.families import load
from pti_pipeline.objective import WEIGHTINGS, Objective
from pti_pipeline.weighting import SCHEMES, row_weights

TIMES = torch.tensor([0, 1, 50, 250, 500, 750, 998, 999])


def weights(base, name, gamma=5.0):
    return row_weights(base, TIMES, Objective(weighting=name, min_snr_gamma=gamma))


@pytest.fixture
def epsilon(tiny_epsilon_folder):
    return load(str(tiny_epsilon_folder), "cpu")


def test_every_scheme_has_a_name():
    assert ("none", *SCHEMES) == WEIGHTINGS


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_of_noise(epsilon, gamma):
    snr = compute_snr(epsilon.scheduler, TIMES)
    torch.testing.assert_close(weights(epsilon, "min-snr", gamma), snr.clamp(max=gamma) / snr)
    torch.testing.assert_close(weights(epsilon, "debiased"), 1 / snr.sqrt())
    assert weights(epsilon, "none").tolist() == [1.0] * len(TIMES)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_of_velocity(base, gamma):
    snr = compute_snr(base.scheduler, TIMES)
    wanted = snr.clamp(max=gamma) / (snr + 1)
    torch.testing.assert_close(weights(base, "min-snr", gamma), wanted, rtol=1e-4, atol=1e-8)
    wanted = snr.sqrt() / (snr + 1)
    torch.testing.assert_close(weights(base, "debiased"), wanted, rtol=1e-4, atol=1e-8)


class Flow:
    """Straight paths from latents to noise, whose velocity is predicted (Lipman et al. 2023)."""

    def level(self, timesteps):
        return (timesteps.double() / 999)[:, None, None, None]

    def add_noise(self, latents, noise, timesteps):
        return (1 - self.level(timesteps)) * latents + self.level(timesteps) * noise

    def clean(self, noisy, prediction, timesteps):
        return noisy - self.level(timesteps) * prediction


def test_of_a_flow_from_clean_to_noise():
    level = TIMES.double() / 999
    snr = ((1 - level) / level.clamp(min=1e-6)).square()
    wanted = snr.clamp(max=5) * level.square()
    torch.testing.assert_close(weights(Flow(), "min-snr"), wanted)
    torch.testing.assert_close(weights(Flow(), "debiased"), level * (1 - level))
