import math

import pytest
import torch
from conftest import WORDS

from pti_pipeline import lora
from pti_pipeline.batches import Material, draw_batch, prepare
from pti_pipeline.data import load_subject
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.training import FlatAdam, optimise
from pti_pipeline.tuning import finetune


def test_flat_adam_is_torchs_adam():
    g = torch.Generator().manual_seed(0)
    ours = [torch.randn(2, 3, 4, generator=g).double(), torch.randn(2, 5, generator=g).double()]
    theirs = [[p[k].clone().requires_grad_() for p in ours] for k in range(2)]
    lr = torch.tensor([0.1, 0.003]).double()
    optimizer = FlatAdam(ours, lr)
    torchs = [torch.optim.Adam(p, lr=float(r)) for p, r in zip(theirs, lr, strict=True)]
    for _ in range(20):
        optimizer.step(torch.autograd.grad(sum((p**4).sum() for p in ours), ours))
        for adam, parameters in zip(torchs, theirs, strict=True):
            adam.zero_grad()
            sum((p**4).sum() for p in parameters).backward()
            adam.step()
    for index, p in enumerate(ours):
        for k in range(2):
            torch.testing.assert_close(p[k].detach(), theirs[k][index].detach())


def test_the_stride_is_the_length_of_the_step():
    p = torch.ones(2, 6).double()
    before = p.clone()
    record = next(optimise([p], lambda step: (p**2).sum(1), torch.tensor([0.1, 0.2]).double(), 1))
    torch.testing.assert_close(record.stride, (p.detach() - before).norm(dim=1))
    assert record.loss.tolist() == [6.0, 6.0] and record.step == 1


@pytest.fixture
def subject(pictures):
    return load_subject(pictures, 16)


def experiments(kind, **options):
    return [kind(lr=lr, steps=20, batch_size=2, seed=s, **options) for lr, s in SPREAD]


SPREAD = ((1e-4, 0), (1e-3, 1), (1e-2, 0))


def double(material):
    return Material(
        material.mean.double(), material.spread.double(), material.ids, material.prompts
    )


def relative(a, b, start):
    a, b = a.detach(), b.detach()
    return float((a - b).norm() / (b - start).norm())


def test_packed_inversion_is_each_experiment_alone(double_base, subject):
    material = double(prepare(double_base, subject, ["<c>"]))
    start = double_base.initializer_row("cat").double().expand(3, 1, -1).clone()
    packed = start.clone()
    runs = experiments(InvertSettings)
    *_, last = invert(double_base, material, packed, runs)
    for k, settings in enumerate(runs):
        alone = start[:1].clone()
        *_, moment = invert(double_base, material, alone, [settings])
        assert relative(packed[k], alone[0], start[0]) <= 1e-9
        for name, value in moment.metrics.items():
            torch.testing.assert_close(value[0], last.metrics[name][k], rtol=1e-6, atol=1e-9)


def test_packed_tuning_is_each_experiment_alone(double_base, subject):
    base = double_base
    material = double(prepare(base, subject, ["<c>"]))
    pivot = Pivot("<c>", "cat", base.initializer_row("cat")[None] + 0.1, torch.zeros(1, 16))

    def trained(runs):
        adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [r.seed for r in runs])
        for layer in adapter.layers.values():
            layer.down, layer.up = layer.down.double(), layer.up.double()
        *_, last = finetune(base, adapter, material, pivot, runs)
        weights = [la.up.detach() @ la.down.detach() for la in adapter.layers.values()]
        lora.detach(adapter)
        return torch.cat([w.flatten(1) for w in weights], 1), last

    runs = experiments(FinetuneSettings, rank=2, alpha=2.0)
    packed, last = trained(runs)
    for k, settings in enumerate(runs):
        alone, moment = trained([settings])
        assert relative(packed[k], alone[0], torch.zeros(1)) <= 1e-9
        torch.testing.assert_close(
            moment.metrics["distance/delta_norm"][0], last.metrics["distance/delta_norm"][k]
        )
        torch.testing.assert_close(alone[0].norm(), last.metrics["distance/delta_norm"][k])


def test_only_the_placeholders_rows_move(base, subject):
    state = {k: v.clone() for k, v in base.text_encoder.state_dict().items()}
    unet = {k: v.clone() for k, v in base.denoiser.state_dict().items()}
    material = prepare(base, subject, ["<c>"])
    vectors = base.initializer_row("cat").expand(1, 1, -1).clone()
    start = vectors.clone()
    for _ in invert(base, material, vectors, [InvertSettings(lr=0.1, steps=5)]):
        pass
    assert not torch.equal(vectors, start)
    assert all(torch.equal(state[k], v) for k, v in base.text_encoder.state_dict().items())
    assert all(torch.equal(unet[k], v) for k, v in base.denoiser.state_dict().items())


def test_the_pivot_is_bit_identical_after_tuning(base, subject):
    material = prepare(base, subject, ["<c>"])
    pivot = Pivot("<c>", "cat", torch.randn(1, 16), torch.zeros(1, 16))
    before = pivot.embedding.clone()
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    for _ in finetune(base, adapter, material, pivot, [FinetuneSettings(lr=0.1, steps=5)]):
        pass
    assert torch.equal(pivot.embedding, before)
    lora.detach(adapter)


@pytest.mark.parametrize("change", [{"lr": 0.02}, {"seed": 1}, {"batch_size": 3}, {"steps": 6}])
def test_each_setting_of_the_inversion_matters(base, subject, change):
    material = prepare(base, subject, ["<c>"])
    ends = []
    for options in ({}, {}, change):
        vectors = base.initializer_row("cat").expand(1, 1, -1).clone()
        settings = InvertSettings(**{"lr": 0.01, "steps": 5, "batch_size": 2, **options})
        for _ in invert(base, material, vectors, [settings]):
            pass
        ends.append(vectors.detach())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("change", [{"rank": 3}, {"alpha": 8.0}, {"lr": 0.02}, {"seed": 1}])
def test_each_setting_of_the_tuning_matters(base, subject, change):
    material = prepare(base, subject, ["<c>"])
    pivot = Pivot("<c>", "cat", base.initializer_row("cat")[None], torch.zeros(1, 16))
    ends = []
    for options in ({}, {}, change):
        s = FinetuneSettings(**{"lr": 0.01, "steps": 5, "batch_size": 2, **options})
        adapter = lora.attach(base.denoiser, s.rank, s.alpha, TARGETS, [s.seed])
        *_, last = finetune(base, adapter, material, pivot, [s])
        ends.append(float(last.metrics["distance/delta_norm"]))
        lora.detach(adapter)
    assert ends[0] == ends[1] != ends[2]
    assert math.isfinite(ends[2])


def test_experiments_of_equal_seeds_share_their_draws_and_others_do_not(base, subject):
    material = prepare(base, subject, ["<c>"])
    batch = draw_batch(material, [0, 1, 0], 2, 1000, 3)
    for rows in (batch.latents, batch.noise, batch.timesteps, batch.prompts):
        first, _, third = rows.chunk(3)
        assert torch.equal(first, third)
    assert not torch.equal(*batch.noise.chunk(3)[:2])
    again = draw_batch(material, [0], 2, 1000, 3)
    assert torch.equal(again.noise, batch.noise[:2])
    assert not torch.equal(draw_batch(material, [0], 2, 1000, 4).noise, again.noise)


def test_latents_are_drawn_from_the_posterior(base, subject):
    material = prepare(base, subject, ["<c>"])
    wide = Material(material.mean, material.spread + 3, material.ids, material.prompts)
    gap = (
        draw_batch(wide, [0], 64, 1000, 0).latents
        - draw_batch(
            Material(material.mean, 0 * material.spread, material.ids, material.prompts),
            [0],
            64,
            1000,
            0,
        ).latents
    )
    assert float(gap.std()) == pytest.approx(float(wide.spread.mean()), rel=0.1)


def test_the_vocabulary_of_the_tiny_model_is_known(base):
    assert all(len(base.initializer_row(word)) == 16 for word in WORDS)
