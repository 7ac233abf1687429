"""A denoiser in 8 or 4 bits: how near it is, and that it is trained on like another."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pti_pipeline import lora, travel
from pti_pipeline.batches import prepare
from pti_pipeline.characters import Characters, draw
from pti_pipeline.data import load_subject
from pti_pipeline.errors import UsageError
from pti_pipeline.families import few_bits, load
from pti_pipeline.families.drafts import draft
from pti_pipeline.families.few_bits import BLOCK, FewBits, decode, encode, levels
from pti_pipeline.live import held_bytes
from pti_pipeline.needs import weights_of
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, SampleSettings
from pti_pipeline.tuning import finetune

NEAR = {4: 0.1, 8: 0.007}
"""Relative error of normal weights, by norm."""


@pytest.fixture(params=NEAR)
def bits(request):
    return request.param


def linear(inputs=100, outputs=70):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs).requires_grad_(False)


@pytest.mark.parametrize("shape", [(70, 100), (64, 96), (128, 32), (3, 48), (2, 1)])
def test_weights_come_near(bits, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    read = decode(*encode(weight, bits), bits, shape)
    assert read.shape == shape
    assert (read - weight).norm() <= NEAR[bits] * weight.norm()


def test_levels_come_back_exactly(bits):
    values = levels(bits, torch.device("cpu"))
    weight = 3 * values.repeat_interleave(BLOCK).reshape(-1, len(values)).T
    weight = weight.contiguous()
    weight[:, 0] = 3.0
    read = decode(*encode(weight, bits), bits, tuple(weight.shape))
    assert torch.allclose(read, weight, atol=1e-6)
    zeros = torch.zeros(2, BLOCK)
    assert torch.equal(decode(*encode(zeros, bits), bits, (2, BLOCK)), zeros)


def test_a_layer_is_that_of_its_weights_and_holds_none_of_them(bits):
    dense = linear()
    layer = FewBits(dense, bits)
    x = torch.randn(5, 100, requires_grad=True)
    for one, other in ((layer(x), F.linear(x, layer.weight, dense.bias)),):
        assert torch.equal(one, other)
        grads = (torch.autograd.grad(y.square().sum(), [x])[0] for y in (one, other))
        assert torch.allclose(*grads)
    assert held_bytes(lambda: layer(x), x.device) == 5 * 70 * 4


@pytest.mark.parametrize(("bits", "most"), [(8, 0.54), (4, 0.29)])
def test_a_transformer_takes_so_much_less(bits, most):
    """Of bfloat16; scales take 2 bytes for 64 weights."""
    folder = "benchmarks/shapes/stable-diffusion-3-medium"
    whole, few = (weights_of(draft(folder, "bf16", b)).denoiser for b in (16, bits))
    assert few < most * whole


def test_a_base_in_few_bits_is_the_same_base_and_nearly_answers_as_it(bits):
    whole, few = load("world", "cpu"), load("world", "cpu", bits=bits)
    assert few.fingerprint == whole.fingerprint
    latents, times = whole.start_latents([0, 1]), torch.tensor([200, 800])
    with torch.no_grad():
        condition = whole.condition(whole.tokenize(["a rabbit"] * 2, []))
        one, other = (base.predict(latents, times, condition) for base in (whole, few))
    assert 0 < (one - other).norm() < NEAR[bits] * one.norm()


def test_loras_are_trained_on_it(bits):
    base = load("world", "cpu", bits=bits)
    latents, times = base.start_latents([0]), torch.tensor([500])
    with torch.no_grad():
        condition = base.condition(base.tokenize(["a rabbit"], []))
        before = base.predict(latents, times, condition)
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    assert travel.base_norm(adapter) > 0
    for parameter in adapter.parameters:
        parameter.requires_grad_()
    prediction = base.predict(latents, times, condition)
    assert torch.allclose(prediction, before, atol=1e-5)
    grads = torch.autograd.grad(prediction.square().sum(), adapter.parameters)
    assert all(g.isfinite().all() for g in grads) and any(g.abs().sum() > 0 for g in grads)
    lora.detach(adapter)
    with torch.no_grad():
        assert torch.equal(base.predict(latents, times, condition), before)


ADAPTED = {4: {"dora": True, "encoders": True}, 8: {}}


@pytest.mark.parametrize("folder", ["sdxl", "sd3"], indirect=True)
def test_a_character_on_it_is_trained_kept_and_drawn(folder, bits, pictures, tmp_path):
    base = load(str(folder), "cpu", bits=bits)
    assert {type(m) for m in base.denoiser.modules() if isinstance(m, nn.Linear)} == {FewBits}
    start = base.initializer_row("cat")[None]
    pivot = Pivot("<c>", "cat", start + 0.1, start, base.widths)
    more = dict(ADAPTED[bits])
    encoders = base.encoders if more.pop("encoders", False) else lora.NONE
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0], encoders=encoders, **more)
    begun = [p.clone() for p in adapter.parameters]
    material = prepare(base, load_subject(pictures, base.resolution), ["<c>"])
    runs = [FinetuneSettings(lr=0.01, steps=2, batch_size=1)]
    *_, last = finetune(base, adapter, material, [pivot], runs)
    assert last.alive.all() and float(last.derived["distance/relative"]) > 0
    moved = [not torch.equal(*each) for each in zip(begun, adapter.parameters, strict=True)]
    assert sum(moved) > 0.9 * len(moved)  # some answer nobody, see test_adapters
    who, how = Characters("<c>", pivot.embedding[None]), SampleSettings(3, 4.0)

    def drawn():
        return draw(base, who, ["a photo of {}"], [3], how)

    picture = drawn()
    lora.detach(adapter)
    without = drawn()
    base.save_lora(lora.peft_state(adapter, 0), adapter.config.facts(), tmp_path)
    state, facts = base.load_lora(tmp_path / "pytorch_lora_weights.safetensors")
    again = lora.attach_states(base.denoiser, [state], facts, base.encoders)
    torch.testing.assert_close(drawn(), picture)
    lora.detach(again)
    assert picture.isfinite().all() and not torch.allclose(picture, without, atol=1e-3)


def test_without_its_library_no_base_is_loaded(bits, monkeypatch):
    monkeypatch.setattr(few_bits, "find_spec", lambda name: None)
    for way in (lambda: load("world", "cpu", bits=bits), lambda: draft("world", bits=bits)):
        with pytest.raises(UsageError, match="bitsandbytes") as refused:
            way()
        assert refused.value.code == "E264" and "pip install" in refused.value.hint


FAULTS = {"division by zero": lambda *_: 1 / 0, "other numbers": lambda *_: torch.ones(64, 96)}


@pytest.mark.parametrize("told", FAULTS)
def test_a_library_that_fails_here_is_told_before_a_base_is_loaded(bits, monkeypatch, told):
    monkeypatch.setattr(few_bits, "decode", FAULTS[told])
    with pytest.raises(UsageError, match=told) as refused:
        load("world", "cpu", bits=bits)
    assert refused.value.code == "E264"
