"""What a training may descend beside the plain loss: each by its effect, in packs as alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pti_pipeline import lora
from pti_pipeline.batches import draw_batch, placed, prepare
from pti_pipeline.data import load_subject
from pti_pipeline.inversion import invert
from pti_pipeline.losses import pack_losses
from pti_pipeline.objective import PLAIN, Objective
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.tuning import finetune

CHANGES = [
    {"weighting": "min-snr"},
    {"weighting": "min-snr", "min_snr_gamma": 1.0},
    {"weighting": "debiased"},
    {"offset_noise": 0.1},
    {"timestep_range": "0,0.8"},
    {"timestep_bias": 1.0},
    {"background": 0.1},
    {"flip": "yes"},
    {"flip": "yes", "background": 0.1},
]
"""Of the objective, each with an effect of its own."""


@pytest.fixture
def subject(pictures):
    """Three pictures, of which two have masks."""
    left = np.arange(16)[None].repeat(16, 0) < 6
    return replace(load_subject(pictures, 16), masks=(left, left.T, None))


def experiments(kind, seeds, **options):
    own = {"steps": 4, "batch_size": 2, **options}
    return [kind(lr=10.0 ** -(2 + k), seed=seed, **own) for k, seed in enumerate(seeds)]


def material_of(base, subject, settings):
    material = prepare(base, subject, ["<c>"], settings)
    return replace(material, area=material.area.to(base.dtype))


def inverted(base, subject, runs):
    """Vectors at the end (K, H), and the last moment."""
    vectors = base.initializer_row("cat").expand(len(runs), 1, -1).clone()
    vectors = vectors.to(base.dtype)
    *_, last = invert(base, material_of(base, subject, runs[0]), vectors, runs)
    return vectors.detach()[:, 0], last


def tuned(base, subject, runs):
    """Effective weights at the end (K, n), and the last moment."""
    start = base.initializer_row("cat")[None]
    pivots = [Pivot("<c>", "cat", start + 0.1, start)] * len(runs)
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [r.seed for r in runs])
    for layer in adapter.layers.values():
        layer.down, layer.up = layer.down.to(base.dtype), layer.up.to(base.dtype)
    *_, last = finetune(base, adapter, material_of(base, subject, runs[0]), pivots, runs)
    weights = [la.up.detach() @ la.down.detach() for la in adapter.layers.values()]
    lora.detach(adapter)
    return torch.cat([w.flatten(1) for w in weights], 1), last


STAGES = [(inverted, InvertSettings), (tuned, FinetuneSettings)]


@pytest.mark.parametrize(("train", "kind"), STAGES)
def test_each_has_an_effect_of_its_own(base, subject, train, kind):
    ends = [train(base, subject, experiments(kind, [0], **each))[0] for each in ({}, *CHANGES)]
    for i, one in enumerate(ends):
        assert one.isfinite().all()
        assert not any(torch.equal(one, other) for other in ends[:i])


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize(("train", "kind"), STAGES)
def test_in_a_pack_it_is_as_alone(double_base, subject, train, kind, change):
    runs = experiments(kind, [0, 1, 0], **change)
    packed, last = train(double_base, subject, runs)
    for k, settings in enumerate(runs):
        alone, moment = train(double_base, subject, [settings])
        torch.testing.assert_close(packed[k], alone[0], rtol=1e-9, atol=1e-12)
        loss = last.metrics["train/loss"][k], moment.metrics["train/loss"][0]
        torch.testing.assert_close(*loss, rtol=1e-6, atol=0)


def test_predicting_nothing_is_weighted_as_the_prediction_is():
    target, weights = torch.randn(4, 4, 8, 8), torch.tensor([0.1, 2.0, 0.0, 1.0])
    area = torch.rand(4, 1, 8, 8)
    losses, nothing = pack_losses(torch.zeros_like(target), target, area, weights, 2, 2)
    assert torch.equal(losses, nothing)
    whole = (target.square() * area).flatten(1).mean(1) * weights
    torch.testing.assert_close(losses, whole.unflatten(0, (2, 2)).mean(1))


@pytest.mark.parametrize("timesteps", [1, 7, 50, 1000, 4096])
def test_even_timesteps_stay_where_they_are(timesteps):
    even = torch.arange(timesteps)
    assert torch.equal(placed(even, timesteps, PLAIN), even)


def test_timesteps_of_a_part_of_the_schedule():
    even = torch.arange(1000)
    part = placed(even, 1000, Objective(timestep_range="0.2,0.8"))
    assert (int(part.min()), int(part.max())) == (200, 799)
    assert part.bincount(minlength=1000)[200:800].max() == 2  # as evenly as integers can be


@pytest.mark.parametrize("bias", [-1.0, math.log(2), 2.0])
def test_biased_timesteps_follow_their_law(bias):
    times = placed(torch.arange(1000), 1000, Objective(timestep_bias=bias)).double()
    # u^a has the mean 1 / (1 + a), and lies below x in a share x^(1/a) of all draws
    a = math.exp(-bias)
    assert float(times.mean()) / 1000 == pytest.approx(1 / (1 + a), abs=2e-3)
    assert float((times < 300).double().mean()) == pytest.approx(0.3 ** (1 / a), abs=2e-3)


def test_offset_noise_is_the_same_all_over_a_channel_and_changes_no_other_draw(base, subject):
    material = prepare(base, subject, ["<c>"])
    plain = draw_batch(material, [0, 1], 64, 1000, 3)
    batch = draw_batch(material, [0, 1], 64, 1000, 3, objective=Objective(offset_noise=0.5))
    for name in ("latents", "timesteps", "prompts"):
        assert torch.equal(getattr(plain, name), getattr(batch, name))
    offset = batch.noise - plain.noise
    torch.testing.assert_close(offset, offset[..., :1, :1].expand_as(offset), rtol=0, atol=1e-6)
    assert float(offset.std()) == pytest.approx(0.5, rel=0.1)
    some = draw_batch(material, [0, 1], 64, 1000, 3, slice(5, 9), Objective(offset_noise=0.5))
    assert torch.equal(some.noise[:4], batch.noise[5:9])
