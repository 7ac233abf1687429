import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

from pti_pipeline import lora
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.sampling import sample, to_uint8
from pti_pipeline.settings import TARGETS
from pti_pipeline.targets import check_rank


def inputs(base, rows, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(rows, 4, 8, 8, generator=g).to(dtype),
        torch.arange(rows) * 100,
        torch.randn(rows, 32, 16, generator=g).to(dtype),
    )


def perturbed(base, seeds=(0,), rank=4, alpha=4.0):
    adapter = lora.attach(base.denoiser, rank, alpha, TARGETS, seeds)
    g = torch.Generator().manual_seed(7)
    for layer in adapter.layers.values():
        layer.up += 0.3 * torch.randn(layer.up.shape, generator=g)
    return adapter


def test_a_rank_is_at_most_the_side_of_the_largest_layers(base):
    check_rank(base.denoiser, 32, TARGETS)
    with pytest.raises(UsageError, match=r"E202.*rank is 33.*at most 32"):
        check_rank(base.denoiser, 33, TARGETS)


def test_attach_changes_nothing_and_detach_gives_the_base_back(base):
    rows = inputs(base, 2)
    before, modules = base.predict(*rows), dict(base.denoiser.named_modules())
    adapter = lora.attach(base.denoiser, 4, 4.0, TARGETS, [0])
    assert torch.equal(base.predict(*rows), before)
    lora.detach(adapter)
    adapter = perturbed(base)
    assert not torch.allclose(base.predict(*rows), before)
    with lora.disabled(adapter):
        assert torch.equal(base.predict(*rows), before)
    assert not torch.allclose(base.predict(*rows), before)
    lora.detach(adapter)
    assert torch.equal(base.predict(*rows), before)
    assert dict(base.denoiser.named_modules()) == modules


def test_one_experiment_is_pefts_own_lora(double_base):
    base = double_base
    adapter = perturbed(base, rank=3, alpha=6.0)
    rows = inputs(base, 2, torch.float64)
    state, ours = lora.peft_state(adapter, 0), base.predict(*rows)
    lora.detach(adapter)
    config = LoraConfig(r=3, lora_alpha=6.0, target_modules=list(TARGETS))
    inject_adapter_in_model(config, base.denoiser)
    plain = {name.removeprefix(lora.PREFIX): value for name, value in state.items()}
    problems = set_peft_model_state_dict(base.denoiser, plain)
    assert not problems.unexpected_keys
    assert len(plain) == 2 * len(adapter.layers)
    torch.testing.assert_close(ours, base.predict(*rows), rtol=1e-9, atol=1e-9)


def test_packed_rows_are_those_of_each_experiment_alone(base):
    adapter = perturbed(base, seeds=(0, 1, 1))
    states = [lora.peft_state(adapter, k) for k in range(3)]
    noisy, times, condition = inputs(base, 2)
    packed = base.predict(noisy.repeat(3, 1, 1, 1), times.repeat(3), condition.repeat(3, 1, 1))
    lora.detach(adapter)
    config = {"r": 4, "lora_alpha": 4.0, "target_modules": list(TARGETS)}
    for k, state in enumerate(states):
        alone = lora.attach_states(base.denoiser, [state], config)
        torch.testing.assert_close(base.predict(noisy, times, condition), packed[2 * k : 2 * k + 2])
        lora.detach(alone)


def test_equal_seeds_start_equal_and_others_do_not(base):
    adapter = lora.attach(base.denoiser, 4, 4.0, TARGETS, [5, 6, 5])
    for layer in adapter.layers.values():
        assert torch.equal(layer.down[0], layer.down[2])
        assert not torch.equal(layer.down[0], layer.down[1])
        assert not layer.up.any()


@pytest.mark.parametrize("alpha", [4.0, 9.0])
def test_diffusers_draws_the_same_picture_from_the_saved_file(base, tiny_folder, tmp_path, alpha):
    adapter = perturbed(base, alpha=alpha)
    facts = {"r": 4, "lora_alpha": alpha, "target_modules": list(TARGETS)}
    base.save_lora(lora.peft_state(adapter, 0), facts, tmp_path)
    states = base.condition(base.tokenize(["a photo of cat", ""], []))
    ours = to_uint8(sample(base, states[None, :1], states[1], [3], 5, 3.0))[0, 0]
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipe.load_lora_weights(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        "a photo of cat",
        num_inference_steps=5,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    assert np.abs(np.asarray(theirs).astype(int) - ours).max() <= 1
    state, config = base.load_lora(tmp_path / "pytorch_lora_weights.safetensors")
    assert config["lora_alpha"] == alpha
    for name, value in lora.peft_state(adapter, 0).items():
        assert torch.equal(state[name], value)


def test_loras_of_other_models_and_broken_ones_are_refused(base):
    adapter = perturbed(base)
    state = lora.peft_state(adapter, 0)
    lora.detach(adapter)
    config = {"r": 4, "lora_alpha": 4.0, "target_modules": list(TARGETS)}
    rows = inputs(base, 1)
    before = base.predict(*rows)
    name = next(iter(state))
    for value, code in ((torch.zeros(4, 5), "E405"), (state[name] * torch.nan, "E403")):
        with pytest.raises(ModelError, match=code):
            lora.attach_states(base.denoiser, [{**state, name: value}], config)
        assert torch.equal(base.predict(*rows), before)


def test_targets_that_match_nothing(base):
    with pytest.raises(UsageError, match="E207"):
        lora.attach(base.denoiser, 4, 4.0, ["to_nothing"], [0])
    assert isinstance(base.denoiser, UNet2DConditionModel)
