"""What a training may descend beside the plain loss: each by its effect, in packs as alone."""

import pytest
import torch

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.inversion import invert
from pti_pipeline.losses import pack_losses
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.tuning import finetune

CHANGES = [
    {"weighting": "min-snr"},
    {"weighting": "min-snr", "min_snr_gamma": 1.0},
    {"weighting": "debiased"},
]
"""Of the objective, each with an effect of its own."""


@pytest.fixture
def subject(pictures):
    return load_subject(pictures, 16)


def experiments(kind, seeds, **options):
    own = {"steps": 4, "batch_size": 2, **options}
    return [kind(lr=10.0 ** -(2 + k), seed=seed, **own) for k, seed in enumerate(seeds)]


def material_of(base, subject, settings):
    return prepare(base, subject, ["<c>"])


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
    losses, nothing = pack_losses(torch.zeros_like(target), target, weights, 2, 2)
    assert torch.equal(losses, nothing)
    whole = target.square().flatten(1).mean(1) * weights
    torch.testing.assert_close(losses, whole.unflatten(0, (2, 2)).mean(1))
