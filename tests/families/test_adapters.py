"""What a LoRA may adapt in every family, trained, saved and read; diffusers and peft tell."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

from pti_pipeline import kohya, lora
from pti_pipeline.adaptation import FEED_FORWARD, Adaptation
from pti_pipeline.batches import Material, prepare
from pti_pipeline.blending import LoRA, blended
from pti_pipeline.characters import Characters, class_word, draw
from pti_pipeline.data import patterns_of
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.exports import read_lora
from pti_pipeline.families import load
from pti_pipeline.low_rank import PREFIX
from pti_pipeline.pivot import Pivot
from pti_pipeline.randomness import generator
from pti_pipeline.regularizers import regularize
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import TARGETS, FinetuneSettings, SampleSettings
from pti_pipeline.targets import adapted, check_rank, chosen
from pti_pipeline.tuning import encode_rows, finetune
from pti_pipeline.weights import write_weights

FILE = "pytorch_lora_weights.safetensors"
NEAR = {"rtol": 1e-6, "atol": 1e-6}
"""Files are float32."""


def pivot_of(base):
    start = base.initializer_row("cat")[None].to(base.dtype)
    moved = start + 0.1 * torch.randn(start.shape, generator=generator(0, "pivot", 0)).to(start)
    return Pivot("<c>", "cat", moved, start, base.widths)


def attach(base, settings, seeds=(0,), up=0.0):
    """New LoRAs as a tuning attaches them, in the base's precision, and moved by ``up``."""
    targets = chosen(base.denoiser, settings, base.feed_forward)
    encoders = base.encoders if settings.text_encoder == "yes" else {}
    made = targets, seeds, settings.rslora == "yes", encoders, settings.dora == "yes"
    adapter = lora.attach(base.denoiser, 2, 3.0, *made)
    for index, layer in enumerate(adapter.layers.values()):
        drawn = torch.randn(layer.up.shape, generator=generator(0, "test", index))
        layer.up = (layer.up + up * drawn).float().to(base.dtype)
        layer.down = layer.down.to(base.dtype)
        if layer.magnitude is not None:
            more = 1 + up * torch.rand(layer.magnitude.shape, generator=generator(1, "test", index))
            layer.magnitude = (layer.magnitude * more).float().to(base.dtype)
    return adapter


def asked(base, prompts=("a photo of cat", "dog on the beach")):
    shape = (len(prompts), *base.start_latents([0]).shape[1:])
    noisy = torch.randn(shape, generator=generator(0, "answer", 0)).to(base.dtype)
    states = base.condition(base.tokenize(prompts, []))
    return base.predict(noisy, torch.full((len(prompts),), 500), states)


@torch.no_grad()
def answer(base):
    return asked(base)


def answered_by(base, pipe):
    """The answer with the parts of a pipeline of diffusers."""
    own = dict(base._parts)
    names = [base.denoiser_part, *(name for _, name in base.encoder_parts)]
    denoiser, *encoders = (getattr(pipe, name).to(base.dtype) for name in names)
    base._parts |= {"denoiser": (denoiser,), "text encoders": tuple(encoders)}
    try:
        return answer(base)
    finally:
        base._parts |= own


def plain(folder):
    """diffusers' own pipeline of a family's folder."""
    lacks = {"text_encoder_3": None, "tokenizer_3": None} if "without" in str(folder) else {}
    pipe = DiffusionPipeline.from_pretrained(folder, **lacks)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def saved(base, adapter, folder):
    base.save_lora(lora.peft_state(adapter, 0), adapter.config.facts(), folder)
    return folder / FILE


def trained(base, material, experiments, pivot):
    """Values of the LoRAs that experiments end with, each flat, and the last moment."""
    adapter = attach(base, experiments[0], [e.seed for e in experiments])
    *_, last = finetune(base, adapter, material, [pivot] * len(experiments), experiments)
    lora.detach(adapter)
    flat = [p.detach().flatten(1) for p in adapter.parameters]
    return torch.cat(flat, 1), last, adapter


def double_material(base, subject):
    found = prepare(base, subject, ["<c>"])
    return Material(found.mean.double(), found.spread.double(), found.ids, found.prompts)


OPTIONS = [{"targets": FEED_FORWARD}, {"rslora": "yes"}, {"text_encoder": "yes"}, {"dora": "yes"}]


def unread(base, name):
    """Whether what a layer answers comes to nothing in this family."""
    if base.denoiser_part == "transformer":
        return "1.attn.add_q_proj" in name  # the last block gives nothing back to the prompt
    return len(base.encoders) == 2 and name.startswith("text_encoder.text_model.encoder.layers.2")


def test_feed_forward_layers_are_those_of_the_family(base):
    endings = chosen(base.denoiser, Adaptation(targets=FEED_FORWARD), base.feed_forward)
    assert endings[:4] == TARGETS and "ff.net.0.proj" in endings and "ff.net.2" in endings
    joint = {"attn.add_k_proj", "to_add_out", "ff_context.net.2"}
    linear = getattr(base.denoiser.config, "use_linear_projection", False)
    expected = joint if base.denoiser_part == "transformer" else {"proj_in"} if linear else {*()}
    assert {*endings} & {*joint, "proj_in"} == expected
    layers = adapted(base.denoiser, endings)
    assert {*adapted(base.denoiser, TARGETS)} < {*layers}
    inject_adapter_in_model(LoraConfig(r=2, target_modules=list(endings)), base.denoiser)
    theirs = {n.removesuffix(".lora_A") for n, _ in base.denoiser.named_modules()}
    assert {*layers} <= theirs


def test_endings_of_no_layer_or_of_no_linear_one_are_told_in_one_line(base):
    conv = "proj" if base.denoiser_part == "transformer" else "conv1"
    for ending, what in {"nothing": "ends in 'nothing'", conv: "no linear layer"}.items():
        with pytest.raises(UsageError, match=rf"E207.*{what}") as caught:
            adapted(base.denoiser, [*TARGETS, ending])
        told = str(caught.value)
        assert "to_out.0" in told and "net.2" in told and "\n" not in told
        known = told.split("use some of ")[1].rstrip(".").split(", ")
        assert adapted(base.denoiser, known)
    assert chosen(base.denoiser, Adaptation(targets="to_k,net.2"), ()) == ("to_k", "net.2")
    with pytest.raises(UsageError, match=r"E202.*rank is 65"):
        check_rank(base.denoiser, 65, ["to_k"])


@pytest.mark.parametrize("options", OPTIONS)
def test_an_adapted_layer_is_trained_and_a_pack_is_each_alone(double, subject, options):
    base, pivot = double, pivot_of(double)
    material = double_material(base, subject)
    usual = {"steps": 5, "batch_size": 2, "rank": 2, "alpha": 3.0, **options}
    runs = [FinetuneSettings(lr=lr, seed=seed, **usual) for lr, seed in ((1e-3, 0), (4e-3, 1))]
    packed, last, adapter = trained(base, material, runs, pivot)
    for k, one in enumerate(runs):
        alone, moment, _ = trained(base, material, [one], pivot)
        assert (packed[k] - alone[0]).norm() <= 1e-9 * alone[0].norm()
        found = moment.metrics["distance/delta_norm"][0]
        torch.testing.assert_close(found, last.metrics["distance/delta_norm"][k])
    for name, layer in adapter.layers.items():
        assert unread(base, name) or layer.up.abs().amax((1, 2)).gt(0).all(), name
    plain = {name: value for name, value in usual.items() if name not in options}
    other, *_ = trained(base, material, [FinetuneSettings(lr=1e-3, **plain)], pivot)
    assert other.shape != packed[:1].shape or not torch.allclose(other, packed[:1], atol=1e-4)


@pytest.mark.parametrize("options", OPTIONS)
def test_its_file_is_read_by_diffusers_and_by_us(double, folder, tmp_path, options):
    base = double
    settings = Adaptation(**options)
    before = answer(base)
    adapter = attach(base, settings, up=0.05)
    expected = answer(base)
    with lora.disabled(adapter):
        assert torch.equal(answer(base), before)
    lora.detach(adapter)
    assert torch.equal(answer(base), before)
    assert (expected - before).abs().max() > 1e-3
    path = saved(base, adapter, tmp_path)
    state, config = base.load_lora(path)
    assert config == adapter.config.facts()
    again = lora.attach_states(base.denoiser, [state], config, base.encoders)
    torch.testing.assert_close(answer(base), expected, **NEAR)
    lora.detach(again)
    with blended(base.denoiser, [LoRA(state, config)], [1.0], base.encoders):
        torch.testing.assert_close(answer(base), expected, **NEAR)
    assert torch.equal(answer(base), before)
    with base.lora_file(path) as moved:
        torch.testing.assert_close(answer(base), expected, **NEAR)
    travelled = sum(layer.change(0).square().sum() for layer in adapter.layers.values())
    assert moved.delta_norm == pytest.approx(float(travelled) ** 0.5, rel=1e-4)
    pipe = plain(folder)
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(answered_by(base, pipe), expected, **NEAR)


@pytest.mark.parametrize("options", OPTIONS[:3])
@pytest.mark.parametrize("family", ["sd-noise", "sdxl"])
def test_kohyas_names_and_alpha_draw_the_same(families, family, tmp_path, options):
    base = load(str(families[family]), "cpu")
    adapter = attach(base, Adaptation(**options), up=0.05)
    expected = answer(base)
    lora.detach(adapter)
    file = read_lora(saved(base, adapter, tmp_path))
    write_weights(tmp_path / "kohya.safetensors", kohya.lora_weights(file.weights, file.alpha), {})
    pipe = DiffusionPipeline.from_pretrained(families[family])
    pipe.load_lora_weights(str(tmp_path / "kohya.safetensors"))
    torch.testing.assert_close(answered_by(base, pipe), expected, rtol=1e-4, atol=1e-4)
    with base.lora_file(tmp_path / "kohya.safetensors"):
        torch.testing.assert_close(answer(base), expected, rtol=1e-4, atol=1e-4)


def test_layers_without_a_name_at_kohyas_are_refused(families, tmp_path):
    base = load(str(families["sdxl"]), "cpu")
    adapter = attach(base, Adaptation(targets="to_k,linear_1"), up=0.1)
    lora.detach(adapter)
    file = read_lora(saved(base, adapter, tmp_path))
    with pytest.raises(ModelError, match=r"E421.*add_embedding\.linear_1"):
        kohya.lora_weights(file.weights, file.alpha)


def test_a_dora_has_no_kohya_names_and_is_drawn_alone(families, tmp_path):
    base = load(str(families["sd-noise"]), "cpu")
    adapter = attach(base, Adaptation(dora="yes"), up=0.1)
    lora.detach(adapter)
    file = read_lora(saved(base, adapter, tmp_path))
    with pytest.raises(ModelError, match=r"E421.*DoRA"):
        kohya.lora_weights(file.weights, file.alpha)
    one = LoRA(*base.load_lora(file.path))
    with (
        pytest.raises(ModelError, match=r"E405.*does not add up"),
        blended(base.denoiser, [one, one], [1.0, 1.0]),
    ):
        pass


def test_pictures_of_trained_encoders_are_those_of_diffusers_and_of_each_alone(
    base, folder, tmp_path
):
    """The empty prompt of the guidance is read by them too."""
    adapter = attach(base, Adaptation(text_encoder="yes"), (0, 1), up=0.05)
    how, prompt = SampleSettings(3, 4.0), ["a photo of cat"]
    both = Characters("", torch.zeros(2, 0, 1))
    packed = to_uint8(draw(base, both, prompt, [5], how)).astype(int)[:, 0]
    lora.detach(adapter)
    facts = adapter.config.facts()
    states = [lora.peft_state(adapter, k) for k in range(2)]
    for state, picture in zip(states, packed, strict=True):
        alone = lora.attach_states(base.denoiser, [state], facts, base.encoders)
        drawn = to_uint8(draw(base, class_word(""), prompt, [5], how))[0, 0]
        lora.detach(alone)
        assert np.abs(drawn - picture).max() <= 1
    base.save_lora(states[0], facts, tmp_path)
    pipe = plain(folder)
    pipe.load_lora_weights(tmp_path)
    start = torch.Generator().manual_seed(5)
    named = {"num_inference_steps": how.steps, "guidance_scale": how.guidance}
    theirs = np.asarray(pipe(prompt, generator=start, **named).images[0]).astype(int)
    assert np.abs(theirs - packed[0]).max() <= 1
    assert np.abs(packed[0] - packed[1]).max() > 1
    with pytest.raises(ModelError, match="E405"):
        lora.attach_states(base.denoiser, states, facts)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("sd-noise", "timestep-rank"),
        ("sdxl", "class-preservation"),
        ("sdxl", "locality"),
        ("sd3", "locality"),
    ],
    indirect=["folder"],
)
def test_answers_are_held_with_the_encoders_as_they_are(double, subject, name):
    """The target is the base's own answer; a pack is each alone."""
    base, pivot = double, pivot_of(double)
    material = double_material(base, subject)
    usual = {"steps": 3, "batch_size": 2, "rank": 2, "alpha": 3.0, "text_encoder": "yes"}
    usual |= {"regularizer": name, "reg_bank": 3, "reg_latents": "training"}
    runs = [FinetuneSettings(lr=lr, seed=seed, **usual) for lr, seed in ((1e-3, 0), (4e-3, 1))]

    def ends(chosen):
        adapter = attach(base, chosen[0], [e.seed for e in chosen])
        around = material, [pivot] * len(chosen)
        terms = regularize(base, adapter, *around, patterns_of(subject, "<c>"), chosen[0])
        moments = list(finetune(base, adapter, *around, chosen, terms))
        rows = terms[0].rows(0, 0) if terms[0].rows else None
        if rows is not None:
            with torch.no_grad(), lora.only(adapter, slice(1)):
                now = encode_rows(base, adapter, rows)
                with lora.disabled(adapter):
                    torch.testing.assert_close(encode_rows(base, adapter, rows), rows.states)
            assert not torch.allclose(now, rows.states, atol=1e-5)
            term = [m.metrics["train/regularizer"][0] for m in moments]
            assert term[0] < 1e-12 and term[2] > 1e-9
        lora.detach(adapter)
        return torch.cat([p.detach().flatten(1) for p in adapter.parameters], 1)

    packed = ends(runs)
    for k, one in enumerate(runs):
        alone = ends([one])
        assert (packed[k] - alone[0]).norm() <= 1e-9 * alone[0].norm()


def test_a_merged_pipeline_has_the_encoders_moved(families, tmp_path):
    base = load(str(families["sdxl"]), "cpu")
    pivot, before = pivot_of(base), answer(base)
    adapter = attach(base, Adaptation(text_encoder="yes"), up=0.05)
    expected = answer(base)
    lora.detach(adapter)
    base.save_merged(pivot, saved(base, adapter, tmp_path), tmp_path / "merged")
    assert torch.equal(answer(base), before)
    merged = answered_by(base, plain(tmp_path / "merged"))
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("folder", ["sd-noise", "sd3"], indirect=True)
@pytest.mark.parametrize("option", ["rslora", "dora"])
def test_its_answer_and_its_gradients_are_pefts(double, option):
    base, name = double, "lora_magnitude_vector"
    adapter = attach(base, Adaptation(**{option: "yes"}), up=0.3)
    state, own = lora.peft_state(adapter, 0), [p.requires_grad_() for p in adapter.parameters]
    expected = asked(base)
    gradients = torch.autograd.grad(expected.square().sum(), own)
    lora.detach(adapter)
    more = {f"use_{option}": True}
    config = LoraConfig(r=2, lora_alpha=3.0, target_modules=list(TARGETS), **more)
    inject_adapter_in_model(config, base.denoiser)
    plain = {name.removeprefix(PREFIX): value for name, value in state.items()}
    assert not set_peft_model_state_dict(base.denoiser, plain).unexpected_keys
    base.denoiser.double()
    found, theirs = asked(base), dict(base.denoiser.named_parameters())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    kinds = ["lora_A", "lora_B"] + [name] * (option == "dora")
    same = [theirs[f"{la}.{kind}.default.weight"] for la in adapter.layers for kind in kinds]
    for ours, other in zip(gradients, torch.autograd.grad(found.square().sum(), same), strict=True):
        torch.testing.assert_close(ours[0], other, rtol=1e-7, atol=1e-9)
