"""LoRA files of others, against merged weights made here."""

import json

import pytest
import torch
from peft import LoraConfig
from registered import make_lora
from safetensors.torch import save_file

from pti_pipeline import lora
from pti_pipeline.errors import ModelError
from pti_pipeline.pivot import load_embedding
from pti_pipeline.settings import TARGETS
from pti_pipeline.weights import read_weights, write_weights

UNET = ("attn2.to_k", "to_out.0", "proj_in", "resnets.0.conv1", "downsamplers.0.conv")
TEXT = ("q_proj", "out_proj", "fc1")


def states(base):
    return base.condition(base.tokenize(["a photo of cat", "dog on the beach"], []))


def answer(base):
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return base.predict(noisy, torch.full((2,), 500), states(base))


def layers(base):
    """Adapted layers of both parts, under kohya's names."""
    for part, prefix, endings in (
        (base.denoiser, "lora_unet_", UNET),
        (base.text_encoders[0], "lora_te_text_model_", TEXT),
    ):
        for name, module in part.named_modules():
            if name.endswith(endings):
                yield prefix + name.replace(".", "_"), module


def kohya(base, alpha=1.0, rank=2):
    """A file's weights, and the norm of what they add."""
    drawn, state, square = torch.Generator().manual_seed(0), {}, 0.0
    for name, module in layers(base):
        shape = module.weight.shape
        down = torch.randn(rank, *shape[1:], generator=drawn) * 0.3
        up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=drawn) * 0.3
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        state[f"{name}.alpha"] = torch.tensor(alpha)
        square += float(added(state, name).square().sum())
    return state, square**0.5


def added(state, name):
    up, down = state[f"{name}.lora_up.weight"], state[f"{name}.lora_down.weight"]
    scale = state[f"{name}.alpha"] / len(down)
    return scale * (up.flatten(1) @ down.flatten(1)).unflatten(1, down.shape[1:])


def parts_of(base):
    return [dict(part.named_modules()) for part in (base.denoiser, base.text_encoders[0])]


def test_a_kohya_file_answers_as_merged_weights(base, tmp_path):
    state, norm = kohya(base)
    path = tmp_path / "kohya.safetensors"
    save_file(state, path)
    before, modules = answer(base), parts_of(base)
    with base.lora_file(path) as moved:
        found, text = answer(base), states(base)
    assert torch.equal(answer(base), before)
    after = parts_of(base)
    assert all(a[n] is m for a, ms in zip(after, modules, strict=True) for n, m in ms.items())
    weights = 0.0
    for name, module in layers(base):
        weights += float(module.weight.double().square().sum())
        module.weight += added(state, name)
    torch.testing.assert_close(text, states(base), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, answer(base), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, before, atol=1e-2)
    assert moved.delta_norm == pytest.approx(norm, rel=1e-5)
    assert moved.base_norm == pytest.approx(weights**0.5, rel=1e-5)


def test_kohyas_alpha_scales(base, tmp_path):
    norms = []
    for alpha in (1.0, 4.0):
        save_file(kohya(base, alpha)[0], tmp_path / "x.safetensors")
        with base.lora_file(tmp_path / "x.safetensors") as moved:
            norms.append(moved.delta_norm)
    assert norms[1] == pytest.approx(4 * norms[0])


@pytest.fixture
def own(base):
    """A LoRA of our own: its weights, its settings and its answer."""
    adapter = lora.attach(base.denoiser, 2, 6.0, TARGETS, [0])
    for layer in adapter.layers.values():
        layer.up.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    state, expected = lora.peft_state(adapter, 0), answer(base)
    lora.detach(adapter)
    return state, LoraConfig(r=2, lora_alpha=6.0, target_modules=list(TARGETS)), expected


@pytest.mark.parametrize("kind", ["diffusers", "peft"])
def test_our_own_weights_in_others_files(base, own, tmp_path, kind):
    state, config, expected = own
    if kind == "diffusers":
        facts = {"r": 2, "lora_alpha": 6.0, "target_modules": list(TARGETS)}
        base.save_lora(state, facts, tmp_path)
        path = tmp_path / "pytorch_lora_weights.safetensors"
    else:
        path = tmp_path / "adapter_model.safetensors"
        save_file(state, path)
        config.save_pretrained(tmp_path)
    with base.lora_file(path) as moved:
        torch.testing.assert_close(answer(base), expected, rtol=1e-4, atol=1e-5)
    assert moved.delta_norm > 0


def test_a_text_encoder_by_peft(base, tmp_path):
    name = "encoder.layers.0.self_attn.q_proj"
    down, up = torch.ones(1, 16), torch.ones(16, 1)
    prefix = f"base_model.model.{name}"
    path = tmp_path / "adapter_model.safetensors"
    save_file({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}, path)
    LoraConfig(r=1, lora_alpha=3, target_modules=["q_proj"]).save_pretrained(tmp_path)
    before = states(base)
    with base.lora_file(path) as moved:
        assert not torch.allclose(states(base), before)
    assert moved.delta_norm == pytest.approx(3 * 16)
    assert torch.equal(states(base), before)


def wrong(base, case):
    state, _ = kohya(base)
    name = next(iter(state)).split(".")[0]
    if case == "hada_w1_a":
        state[f"{name}.hada_w1_a"] = torch.ones(2, 2)
    elif case == "lora_te2":
        state |= {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 2)}
        state |= {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(2, 1)}
    elif case == "does not fit":
        state[f"{name}.lora_down.weight"] = torch.ones(2, 7, 3, 3)
    elif case == "down_blocks.7":
        state |= {"lora_unet_down_blocks_7_resnets_0_conv1.lora_down.weight": torch.ones(1, 2)}
        state |= {"lora_unet_down_blocks_7_resnets_0_conv1.lora_up.weight": torch.ones(2, 1)}
    elif case == "other.weight":
        state = {"unet.other.weight": torch.ones(2)}
    elif case == "adapter_config":
        state = {"base_model.model.conv_in.lora_A.weight": torch.ones(2)}
    elif case == "no weights":
        state = {}
    elif case == "lora_up":
        del state[f"{name}.lora_up.weight"]
    return state


@pytest.mark.parametrize(
    "case",
    [
        "hada_w1_a",
        "lora_te2",
        "does not fit",
        "down_blocks.7",
        "other.weight",
        "adapter_config",
        "no weights",
        "lora_up",
    ],
)
def test_files_that_do_not_fit_are_told_in_one_line(base, tmp_path, case):
    before = answer(base)
    path = tmp_path / "x.safetensors"
    save_file(wrong(base, case), path)
    with pytest.raises(ModelError) as caught, base.lora_file(path):
        pass
    text = str(caught.value)
    assert caught.value.code == "E411" and "\n" not in text and "x.safetensors" in text
    assert case.replace("lora_te2", "text_encoder_2") in text or case in text
    assert torch.equal(answer(base), before)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        3,
        {"unet.r": "x", "unet.lora_alpha": 2},
        {"unet.r": 2, "unet.lora_alpha": 2, "unet.evil": "os.system"},
        {"unet.r": 2, "unet.lora_alpha": 2, "unet.init_lora_weights": "loftq"},
        {"unet.r": -1, "unet.lora_alpha": 2},
        {"unet.r": 2, "unet.lora_alpha": 2, "unet.target_modules": 3},
        {"unet.r": 2, "unet.lora_alpha": 2, "unet.target_modules": "(("},
    ],
)
def test_settings_that_make_no_sense_are_told_in_one_line(base, tmp_path, settings):
    before = answer(base)
    base.save_lora(*make_lora(base), tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    tensors, header = read_weights(path)
    write_weights(path, tensors, {**header, "lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(ModelError, match=r"E411") as caught, base.lora_file(path):
        pass
    assert "\n" not in str(caught.value)
    assert torch.equal(answer(base), before)


def test_weights_that_are_not_finite(base, tmp_path):
    state, _ = kohya(base)
    next(iter(state.values()))[0] = torch.nan
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="E403"), base.lora_file(tmp_path / "x.safetensors"):
        pass


@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.ckpt"])
def test_pickles_are_refused_unread(base, tmp_path, name):
    torch.save({}, tmp_path / name)
    for read in (lambda p: base.lora_file(p).__enter__(), lambda p: load_embedding(p, [16])):
        with pytest.raises(ModelError, match="E410"):
            read(tmp_path / name)


def test_embeddings_of_others(tmp_path):
    path = tmp_path / "x.safetensors"
    for name, shape in (("<c>", (16,)), ("emb_params", (3, 16)), ("clip_l", (1, 16))):
        save_file({name: torch.arange(torch.Size(shape).numel()).float().view(shape)}, path)
        found = load_embedding(path, [16])
        assert found.shape == (shape[0] if len(shape) == 2 else 1, 16) and found[-1, 1] % 16 == 1
    for state in (
        {"emb_params": torch.ones(1, 8)},
        {"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 32)},
        {"a": torch.ones(2, 2, 16)},
    ):
        save_file(state, path)
        with pytest.raises(ModelError, match="E412"):
            load_embedding(path, [16])
    save_file({"a": torch.full((1, 16), torch.inf)}, path)
    with pytest.raises(ModelError, match="E403"):
        load_embedding(path, [16])
    path.write_text(json.dumps({}))
    with pytest.raises(ModelError, match="E412"):
        load_embedding(path, [16])
