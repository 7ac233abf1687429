import math

import pytest
import torch
from diffusers import StableDiffusionPipeline
from registered import make_lora

from pti_pipeline import lora
from pti_pipeline.blending import LoRA, blended
from pti_pipeline.errors import ModelError


def answers(base, times=(5, 500, 950)):
    g = torch.Generator().manual_seed(0)
    noisy, condition = torch.randn(3, 4, 8, 8, generator=g), torch.randn(3, 32, 16, generator=g)
    return base.predict(noisy, torch.tensor(times), condition)


@pytest.mark.parametrize("timesteps", [0, 1000])
def test_one_lora_of_weight_1_is_as_it_was_trained(base, timesteps):
    state, config = make_lora(base, rank=4, alpha=4.0, size=0.3)
    config["timestep_rank"] = timesteps
    adapter = lora.attach_states(base.denoiser, [state], config)
    alone = answers(base)
    lora.detach(adapter)
    with blended(base.denoiser, [LoRA(state, config)], [1.0]):
        assert torch.equal(answers(base), alone)
    assert not torch.equal(answers(base), alone)


@pytest.mark.parametrize("weights", [(1.0, 0.7), (0.4, -0.5), (0.0, 1.0)])
def test_weighted_sums_are_those_of_diffusers_adapters(base, tiny_folder, tmp_path, weights):
    one = make_lora(base, 1, rank=2, alpha=6.0)
    other = make_lora(base, 2, rank=3, alpha=3.0, targets=("to_q", "to_out.0"))
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    for name, (state, config) in {"one": one, "other": other}.items():
        base.save_lora(state, config, tmp_path / name)
        pipe.load_lora_weights(tmp_path / name, adapter_name=name)
    pipe.set_adapters(["one", "other"], list(weights))
    plain, own = answers(base), base.denoiser
    with blended(own, [LoRA(*one), LoRA(*other)], weights):
        ours = answers(base)
    with blended(own, [LoRA(*one), LoRA(*other)], (1.0, 1.0)):
        assert not torch.allclose(ours, answers(base), atol=1e-3)
    assert torch.equal(answers(base), plain)
    base._parts["denoiser"] = (pipe.unet,)
    torch.testing.assert_close(ours, answers(base), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_the_ranks_of_noisy_timesteps_are_each_loras_own(base):
    one, other = make_lora(base, 1, rank=4, size=0.3), make_lora(base, 2, rank=2, size=0.3)
    one[1]["timestep_rank"] = 1000
    with blended(base.denoiser, [LoRA(*one), LoRA(*other)], [1.0, 0.0]):
        both = answers(base)
    with blended(base.denoiser, [LoRA(*one)], [1.0]):
        torch.testing.assert_close(answers(base), both)
    full = {**one[1], "timestep_rank": 0}
    with blended(base.denoiser, [LoRA(one[0], full)], [1.0]):
        assert not torch.allclose(answers(base), both, atol=1e-4)


def test_what_does_not_fit_is_refused_and_leaves_the_base_alone(base):
    state, config = make_lora(base)
    before, modules = answers(base), dict(base.denoiser.named_modules())
    name = next(iter(state))
    layer = name.removeprefix(lora.PREFIX).removesuffix(".lora_A.weight")
    elsewhere = {n.replace(layer, "conv_in"): value for n, value in state.items()}
    cases = [
        (elsewhere, config, "E405"),
        ({n.replace(layer, "nowhere"): v for n, v in state.items()}, config, "E405"),
        ({**state, name: torch.zeros(2, 5)}, config, "E405"),
        ({**state, name: state[name] * math.nan}, config, "E403"),
        ({**state, "other": state[name]}, config, "E405"),
        (state, {**config, "lora_alpha": math.inf}, "E405"),
        (state, {**config, "r": 0}, "E405"),
        (state, {"r": "two", "lora_alpha": 2.0}, "E405"),
        (state, {}, "E405"),
    ]
    for bad, facts, code in cases:
        fits = LoRA(*make_lora(base, 3))
        with (
            pytest.raises(ModelError, match=code),
            blended(base.denoiser, [fits, LoRA(bad, facts)], [1.0, 1.0]),
        ):
            pass
        assert torch.equal(answers(base), before)
    assert dict(base.denoiser.named_modules()) == modules


def test_an_error_inside_gives_the_base_back(base):
    before, modules = answers(base), dict(base.denoiser.named_modules())
    state, config = make_lora(base)
    config["timestep_rank"] = 1000
    with pytest.raises(KeyError), blended(base.denoiser, [LoRA(state, config)], [1.0]):
        raise KeyError
    assert torch.equal(answers(base), before)
    assert dict(base.denoiser.named_modules()) == modules
    assert not base.denoiser._forward_pre_hooks
