"""What every family must do, on a tiny model of each; diffusers is the oracle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from pti_pipeline import holding, lora
from pti_pipeline.batches import prepare, prepare_views
from pti_pipeline.characters import Characters, class_word, draw, encode, name_positions, tokenized
from pti_pipeline.data import load_subject, patterns_of
from pti_pipeline.errors import ModelError
from pti_pipeline.families import load
from pti_pipeline.inversion import invert
from pti_pipeline.masks import heat
from pti_pipeline.pivot import Pivot, attached, load_pivot, placeholder_tokens, save_pivot
from pti_pipeline.probes import build_probe, encode_probe, read
from pti_pipeline.randomness import generator
from pti_pipeline.regularizers import REGULARIZERS, regularize
from pti_pipeline.sampling import sample, to_uint8
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings, SampleSettings
from pti_pipeline.tuning import finetune
from pti_pipeline.twins import make_twins

PROMPTS, SEEDS = ["a photo of cat", "dog on the beach"], [3, 11]
HOW = SampleSettings(6, 4.0)


@pytest.fixture
def quick(monkeypatch):
    """Samples whose answers are held are drawn in a few steps; what matters here is their shape."""
    monkeypatch.setattr(holding, "SampleSettings", lambda: SampleSettings(3))


def vectors_of(base, count=1, spread=0.3):
    row = base.initializer_row("cat").to(base.dtype)
    drawn = torch.randn(count, len(row), generator=torch.Generator().manual_seed(0))
    return row + spread * drawn.to(row)


def pivot_of(base, count=1):
    vectors = vectors_of(base, count)
    start = base.initializer_row("cat").expand_as(vectors)
    return Pivot("<c>", "cat", vectors.float(), start, base.widths)


def adapter_of(base, seeds, up=0.0):
    adapter = lora.attach(base.denoiser, 2, 4.0, TARGETS, seeds)
    for index, layer in enumerate(adapter.layers.values()):
        drawn = torch.randn(layer.up.shape, generator=generator(0, "test", index))
        layer.up.copy_(up * drawn)
        layer.down, layer.up = layer.down.to(base.dtype), layer.up.to(base.dtype)
    return adapter


def answer(base, prompts=PROMPTS):
    shape = (len(prompts), *base.start_latents([0]).shape[1:])
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        states = base.condition(base.tokenize(prompts, []))
        return base.predict(noisy, torch.full((len(prompts),), 500), states)


def plain(folder):
    pipe = DiffusionPipeline.from_pretrained(
        folder,
        **({"text_encoder_3": None, "tokenizer_3": None} if "without" in str(folder) else {}),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn_by(pipe, prompt, seed, **size):
    picture = pipe(
        prompt,
        **size,
        num_inference_steps=HOW.steps,
        guidance_scale=HOW.guidance,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    return np.asarray(picture).astype(int)


def test_the_base_is_frozen_and_tells_its_measures(base):
    for part in (*base.text_encoders, base.vae, base.denoiser):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())
    assert base.resolution == 16
    assert base.timesteps == 1000
    assert sum(base.widths) == base.vocabulary().shape[1] == len(base.initializer_row("cat"))
    mean, spread = base.encode_images(torch.zeros(2, 3, 16, 16))
    assert mean.shape == spread.shape == (2, *base.start_latents([0]).shape[1:])
    assert base.decode(mean).shape == (2, 3, 16, 16)
    words = base.words()
    assert torch.isin(words, base.vocabulary()).all()


def test_its_pictures_are_those_of_diffusers(base, folder):
    who = class_word("")
    ours = to_uint8(draw(base, who, PROMPTS, SEEDS, HOW))[0]
    pipe = plain(folder)
    for prompt, seed, picture in zip(PROMPTS, SEEDS, ours, strict=True):
        assert np.abs(drawn_by(pipe, prompt, seed) - picture).max() <= 1


def test_pictures_of_other_shapes_are_those_of_diffusers(base, folder):
    height, width = 24, 16  # diffusers takes what 8 divides
    rows = [side * base.start_latents([0]).shape[-1] // base.resolution for side in (height, width)]
    condition = encode(base, class_word(""), PROMPTS[:1])
    drawn = sample(base, condition, base.unconditional(), [3], HOW.steps, HOW.guidance, rows)
    picture = drawn_by(plain(folder), PROMPTS[0], 3, height=height, width=width)
    assert picture.shape == (height, width, 3)
    assert np.abs(picture - to_uint8(drawn)[0, 0]).max() <= 1


@pytest.mark.parametrize("name", ["none", "locality"])
def test_pictures_of_several_shapes_are_trained_on(base, subject, quick, tmp_path, name):
    """One experiment beside another, with rows that are held, is what it is alone."""
    for index, size in enumerate([(24, 24), (24, 40), (40, 24)]):
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"{index}.png")
    subject, pivot = load_subject(tmp_path, base.resolution), pivot_of(base)
    common = FinetuneSettings(
        lr=0.01, steps=6, batch_size=2, rank=2, regularizer=name, reg_bank=4, buckets="yes"
    )
    material = prepare_views(base, subject, tmp_path, ["<c>"], common)
    seen = {material.at(step).mean.shape[-2:] for step in range(6)}
    assert len(material.others) >= 1 and len(seen) > 1

    def trained(seeds):
        runs = [replace(common, seed=seed) for seed in seeds]
        adapter = adapter_of(base, seeds)
        pivots, prompts = [pivot] * len(seeds), patterns_of(subject, "<c>")
        terms = regularize(base, adapter, material, pivots, prompts, runs[0])
        *_, last = finetune(base, adapter, material, pivots, runs, terms)
        lora.detach(adapter)
        return last.metrics["distance/delta_norm"]

    torch.testing.assert_close(trained([0, 4])[1:], trained([4]), rtol=1e-3, atol=0)


def test_a_placeholder_is_read_by_every_encoder(base):
    who = Characters("<c>", vectors_of(base, 2)[None])
    ids = tokenized(base, who, ["a photo of {}", "a dog"])
    assert name_positions(base, who, ids).sum(1).tolist() == [2, 0]
    named = class_word("photo of")
    assert name_positions(base, named, tokenized(base, named, ["a {} cat"]))[
        0
    ].nonzero().tolist() == [
        [2],
        [3],
    ]
    plain_states = encode(base, class_word("cat"), ["a photo of {}"])
    last = None
    for part in range(len(base.widths)):
        columns = base.initializer_row("cat").repeat(1, 1, 1).clone()
        start = sum(base.widths[:part])
        columns[..., start : start + base.widths[part]] *= -1
        moved = encode(base, Characters("<c>", columns), ["a photo of {}"])
        assert not torch.allclose(moved, plain_states, atol=1e-3)
        assert last is None or not torch.allclose(moved, last, atol=1e-3)
        last = moved
    same = encode(
        base, Characters("<c>", base.initializer_row("cat")[None, None]), ["a photo of {}"]
    )
    clip = base.tokenizer.model_max_length  # T5 reads the token's letters
    torch.testing.assert_close(same[..., :clip, :], plain_states[..., :clip, :])


def test_gradients_reach_every_part_of_a_placeholder(base, subject):
    material = prepare(base, subject, ["<c>"])
    vectors = vectors_of(base)[None].clone()
    start = vectors.clone()
    *_, last = invert(base, material, vectors, [InvertSettings(0.01, steps=2, batch_size=2)])
    moved = (vectors - start)[0, 0].split(base.widths)
    assert all((part != 0).float().mean() > 0.9 for part in moved)
    assert last.alive.all()


def test_pooled_states_are_those_of_the_end_however_prompts_name_the_token(base):
    """An outdated configuration takes the largest id for the end: a placeholder's."""
    who = Characters("<c>", base.initializer_row("cat")[None, None])
    moved = encode(base, who, ["{} on the beach"])[0, 0, -1]
    torch.testing.assert_close(
        moved, encode(base, class_word("cat"), ["{} on the beach"])[0, 0, -1]
    )
    other = encode(base, who, ["{} on the dog"])[0, 0, -1]
    assert len(base.widths) == 1 or not torch.allclose(moved, other, atol=1e-4)


def test_a_prediction_of_the_target_stands_for_the_clean_latents(base):
    g = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 4, 8, 8, generator=g) for _ in range(2))
    times = base.drawn(torch.tensor([1, 300, 700, 999]))
    noisy, target = (f(latents, noise, times) for f in (base.add_noise, base.target))
    torch.testing.assert_close(base.clean(noisy, target, times), latents, rtol=1e-3, atol=2e-3)
    gap = (noisy - latents).flatten(1).norm(dim=1)
    assert (gap.diff() > 0).all(), "later timesteps are noisier"


def test_timesteps_are_drawn_as_the_family_was_trained(base):
    even = torch.arange(1000)
    times = base.drawn(even)
    assert (times.diff() > 0).all()
    assert 0 <= times.min() < times.max() <= 1000
    if base.denoiser_part == "unet":
        assert torch.equal(times, even)
    else:  # diffusers' trainer draws these, from normal u, among the scheduler's own
        u = torch.special.ndtri((even.double() + 0.5) / 1000).sigmoid()
        scheduler = base.scheduler
        theirs = scheduler.timesteps[((1 - u) * 1000).long().clamp(max=999)].double()
        assert (times - theirs).abs().max() < 3.1  # they round to one of 1000


@pytest.mark.parametrize("kind", ["inversion", "tuning"])
def test_packs_are_each_experiment_alone(double, subject, kind):
    base = double
    material = prepare(base, subject, ["<c>"])
    material = type(material)(
        material.mean.double(), material.spread.double(), material.ids, material.prompts
    )
    usual = {"steps": 8, "batch_size": 2}
    rates = [(1e-3, 0), (4e-3, 1)]
    pivot = pivot_of(base)
    pivot = Pivot("<c>", "cat", pivot.embedding.double(), pivot.start.double(), base.widths)

    def trained(chosen):
        if kind == "inversion":
            vectors = pivot.embedding.expand(len(chosen), 1, -1).clone()
            runs = [InvertSettings(lr, seed=seed, **usual) for lr, seed in chosen]
            *_, last = invert(base, material, vectors, runs)
            return vectors.detach(), last
        adapter = adapter_of(base, [seed for _, seed in chosen])
        runs = [
            FinetuneSettings(lr=lr, seed=seed, rank=2, alpha=4.0, **usual) for lr, seed in chosen
        ]
        *_, last = finetune(base, adapter, material, [pivot] * len(runs), runs)
        lora.detach(adapter)
        ups = [layer.up.detach().flatten(1) for layer in adapter.layers.values()]
        return torch.cat(ups, 1), last

    packed, last = trained(rates)
    for k, one in enumerate(rates):
        alone, moment = trained([one])
        assert (packed[k] - alone[0]).norm() <= 1e-9 * alone[0].norm()
        found = moment.metrics["distance/delta_norm"][0]
        torch.testing.assert_close(found, last.metrics["distance/delta_norm"][k])
    assert not torch.allclose(packed[0], packed[1])


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_holds(base, subject, quick, name):
    before = answer(base)
    material, pivot = prepare(base, subject, ["<c>"]), pivot_of(base)
    settings = FinetuneSettings(
        lr=0.02,
        steps=4,
        batch_size=2,
        rank=2,
        regularizer=name,
        reg_bank=4,
        until_distance=0.1 if name == "weight-ball" else 0.0,
    )
    adapter = adapter_of(base, [0])
    prompts = patterns_of(subject, "<c>")
    terms = regularize(base, adapter, material, [pivot], prompts, settings)
    for moment in finetune(base, adapter, material, [pivot], [settings], terms):
        if "train/regularizer" in moment.metrics and moment.step == 1:
            zero = moment.metrics["train/regularizer"][0]
            assert zero < 1e-9 or name == "prior-preservation", "the LoRA is still zero"
    assert moment.alive.all()
    if name == "weight-ball":
        assert moment.metrics["distance/delta_norm"][0] <= 0.1 + 1e-6
    lora.detach(adapter)
    assert torch.equal(answer(base), before)


def test_attention_is_watched_without_changing_the_answer(base):
    before = answer(base)
    seen = []
    with base.attention(lambda p: p.sum(-1).mean((1, 2))) as layers:
        assert torch.equal(answer(base), before)
        seen = list(layers)
    assert seen
    assert all(torch.allclose(one, torch.ones(2), atol=1e-5) for one in seen)
    assert torch.equal(answer(base), before)
    who = Characters("<c>", vectors_of(base)[None])
    map_ = heat(base, who, torch.zeros(2, 3, 16, 16))
    assert map_.shape == (2, 16, 16)
    assert np.isfinite(map_).all()


def test_twins_and_functions_are_read(base, subject, pictures):
    twins = make_twins(subject, pictures)
    probe = build_probe(base, subject, twins, "<c>", 1, "cat")
    states = encode_probe(base, probe, vectors_of(base))
    reading = read(base, probe, states)
    assert all(values.isfinite().all() for values in reading.losses.values())
    assert torch.equal(reading.answers, read(base, probe, states).answers)


def test_its_lora_file_is_one_of_diffusers(base, folder, tmp_path):
    adapter = adapter_of(base, [0], up=0.3)
    expected, state = answer(base), lora.peft_state(adapter, 0)
    lora.detach(adapter)
    facts = {"r": 2, "lora_alpha": 4.0, "target_modules": list(TARGETS)}
    base.save_lora(state, facts, tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    found, own = base.load_lora(path)
    assert own == facts
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    before = answer(base)
    with base.lora_file(path) as moved:
        torch.testing.assert_close(answer(base), expected, rtol=1e-4, atol=1e-5)
    assert moved.delta_norm > 0
    assert torch.equal(answer(base), before)
    pipe = plain(folder)
    pipe.load_lora_weights(tmp_path)
    base._parts["denoiser"] = (getattr(pipe, base.denoiser_part),)
    torch.testing.assert_close(answer(base), expected, rtol=1e-4, atol=1e-5)


def test_a_merged_pipeline_draws_the_same_picture(base, tmp_path):
    pivot = pivot_of(base, 2)
    adapter = adapter_of(base, [0], up=0.3)
    who = Characters("<c>", pivot.embedding[None])
    ours = to_uint8(draw(base, who, ["a photo of {}"], [7], HOW))[0, 0]
    facts = {"r": 2, "lora_alpha": 4.0, "target_modules": list(TARGETS)}
    state = lora.peft_state(adapter, 0)
    lora.detach(adapter)
    base.save_lora(state, facts, tmp_path)
    merged = tmp_path / "merged-without-t5" if _lacks_t5(base) else tmp_path / "merged"
    base.save_merged(pivot, tmp_path / "pytorch_lora_weights.safetensors", merged)
    pipe = plain(merged)
    prompts = {"prompt": "a photo of <c>"}
    if base.denoiser_part == "transformer":  # whose pipeline does not write several tokens out
        prompts["prompt"] = f"a photo of {' '.join(placeholder_tokens('<c>', 2))}"
        prompts["prompt_3"] = "a photo of <c>"
    picture = pipe(
        **prompts,
        num_inference_steps=HOW.steps,
        guidance_scale=HOW.guidance,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert np.abs(np.asarray(picture).astype(int) - ours).max() <= 1


def _lacks_t5(base):
    return "text_encoder_3" in base.pipeline.components and base.pipeline.text_encoder_3 is None


def test_a_pivot_comes_back_from_its_file(base, tmp_path):
    pivot = pivot_of(base, 2)
    save_pivot(pivot, tmp_path / "x.safetensors")
    found = load_pivot(tmp_path / "x.safetensors")
    assert torch.equal(found.embedding, pivot.embedding)
    assert torch.equal(found.start, pivot.start)
    assert found.widths == (pivot.widths if len(pivot.widths) > 1 else ())
    ids = base.tokenize(["a photo of <c>"], ["<c>", "<c>_1"])
    with attached(base.text_encoders, found.embedding[None]), torch.no_grad():
        assert base.condition(ids).isfinite().all()


def test_a_lora_of_another_family_is_refused_with_what_was_expected(families, tmp_path):
    names = ("sd-noise", "sdxl", "sd3")
    loaded = {name: load(str(families[name]), "cpu") for name in names}
    for name, base in loaded.items():
        adapter = adapter_of(base, [0], up=0.1)
        state = lora.peft_state(adapter, 0)
        lora.detach(adapter)
        facts = {"r": 2, "lora_alpha": 4.0, "target_modules": list(TARGETS)}
        base.save_lora(state, facts, tmp_path / name)
    file = "pytorch_lora_weights.safetensors"
    with pytest.raises(ModelError, match=r"E405.*of a unet.*has a transformer"):
        loaded["sd3"].load_lora(tmp_path / "sdxl" / file)
    with (
        pytest.raises(ModelError, match=r"E411.*of a transformer.*has unet"),
        loaded["sdxl"].lora_file(tmp_path / "sd3" / file),
    ):
        pass
    with (
        pytest.raises(ModelError, match=r"E411.*does not fit"),
        loaded["sd-noise"].lora_file(tmp_path / "sdxl" / file),
    ):
        pass
