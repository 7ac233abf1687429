"""Packed experiments against each experiment alone, and against peft, in 100 steps."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict

from pti_pipeline import lora
from pti_pipeline.batches import Material, draw_batch, prepare
from pti_pipeline.data import load_subject
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.tuning import encode_prompts, finetune

pytestmark = pytest.mark.exact


@pytest.fixture
def subject(pictures):
    return load_subject(pictures, 16)


def experiments(kind, **options):
    return [kind(lr=lr, steps=100, batch_size=2, seed=s, **options) for lr, s in SPREAD]


SPREAD = ((1e-4, 0), (1e-3, 1), (1e-2, 0))
"""Learning rates a hundredfold apart, below the range where rounding grows to chaos."""


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
    start = base.initializer_row("cat")[None]
    near, far = (Pivot("<c>", "cat", start + shift, start) for shift in (0.1, -0.3))
    pivots = [near, far, near]

    def trained(runs, pivots):
        adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [r.seed for r in runs])
        for layer in adapter.layers.values():
            layer.down, layer.up = layer.down.double(), layer.up.double()
        *_, last = finetune(base, adapter, material, pivots, runs)
        weights = [la.up.detach() @ la.down.detach() for la in adapter.layers.values()]
        lora.detach(adapter)
        return torch.cat([w.flatten(1) for w in weights], 1), last

    runs = experiments(FinetuneSettings, rank=2, alpha=2.0)
    packed, last = trained(runs, pivots)
    for k, settings in enumerate(runs):
        alone, moment = trained([settings], pivots[k : k + 1])
        assert relative(packed[k], alone[0], torch.zeros(1)) <= 1e-9
        torch.testing.assert_close(
            moment.metrics["distance/delta_norm"][0], last.metrics["distance/delta_norm"][k]
        )
        torch.testing.assert_close(alone[0].norm(), last.metrics["distance/delta_norm"][k])


@pytest.mark.slow
def test_in_float32_the_distances_agree(base, subject):
    material = prepare(base, subject, ["<c>"])
    start = base.initializer_row("cat").expand(3, 1, -1).clone()
    pivot = Pivot("<c>", "cat", start[0] + 0.1, start[0])

    def tuned(runs):
        adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [r.seed for r in runs])
        *_, last = finetune(base, adapter, material, [pivot] * len(runs), runs)
        lora.detach(adapter)
        return last

    def inverted(runs):
        *_, last = invert(base, material, start[: len(runs)].clone(), runs)
        return last

    for train, kind in ((inverted, InvertSettings), (tuned, FinetuneSettings)):
        runs = experiments(kind)
        packed = train(runs).metrics["distance/delta_norm"]
        for k, settings in enumerate(runs):
            alone = train([settings]).metrics["distance/delta_norm"]
            torch.testing.assert_close(packed[k], alone[0], rtol=1e-3, atol=0)


def test_one_lora_is_trained_as_peft_trains_it(double_base, subject):
    base, settings = double_base, FinetuneSettings(lr=1e-3, steps=100, batch_size=2, alpha=8.0)
    material = double(prepare(base, subject, ["<c>"]))
    pivot = Pivot("<c>", "cat", base.initializer_row("cat")[None] + 0.1, torch.zeros(1, 16))
    states = encode_prompts(base, pivot, material.ids)
    adapter = lora.attach(base.denoiser, settings.rank, settings.alpha, TARGETS, [0])
    for layer in adapter.layers.values():
        layer.down, layer.up = layer.down.double(), layer.up.double()
    start = lora.peft_state(adapter, 0)
    for _ in finetune(base, adapter, material, [pivot], [settings]):
        pass
    ours = lora.peft_state(adapter, 0)
    lora.detach(adapter)

    config = LoraConfig(r=settings.rank, lora_alpha=8.0, target_modules=list(TARGETS))
    inject_adapter_in_model(config, base.denoiser)
    base.denoiser.double()
    plain = {name.removeprefix(lora.PREFIX): value for name, value in start.items()}
    set_peft_model_state_dict(base.denoiser, plain)
    optimizer = torch.optim.Adam([p for p in base.denoiser.parameters() if p.requires_grad], 1e-3)
    for step in range(settings.steps):
        batch = draw_batch(material, [0], settings.batch_size, base.timesteps, step)
        noisy = base.add_noise(batch.latents, batch.noise, batch.timesteps)
        output = base.denoiser(noisy, batch.timesteps, states[batch.prompts]).sample
        target = base.target(batch.latents, batch.noise, batch.timesteps)
        torch.nn.functional.mse_loss(output, target).backward()
        optimizer.step()
        optimizer.zero_grad()
    theirs = get_peft_model_state_dict(base.denoiser)
    assert len(theirs) == len(ours)
    for name, value in theirs.items():
        move = (value - start[lora.PREFIX + name]).norm()
        assert float((ours[lora.PREFIX + name] - value).norm() / move) <= 1e-9, name
