"""The shipped model: what it must be able to do for the rest to mean anything."""

from itertools import combinations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from pti_pipeline.families import WORLD, load
from pti_pipeline.settings import SampleSettings
from pti_pipeline.steps.world_check.drawing import captions, joined, sample_base
from pti_pipeline.steps.world_check.obeying import obedience
from pti_pipeline.world import WORDS, render, sample_factors
from pti_pipeline.world.factors import COLORS, HATS, SCENES, SPECIES
from pti_pipeline.world.reader import class_targets, load_reader, place_targets


def test_diffusers_opens_the_folder_unaided_and_draws():
    pipe = StableDiffusionPipeline.from_pretrained(WORLD)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a photo of a red cat in the snow", num_inference_steps=4).images[0]
    assert picture.size == (48, 48)
    assert np.asarray(picture).std() > 10


def test_its_settings_do_not_tell_where_it_was_trained():
    for config in WORLD.glob("*/config.json"):
        assert "_name_or_path" not in config.read_text("utf-8"), config


def test_it_is_small():
    assert sum(p.stat().st_size for p in WORLD.rglob("*") if p.is_file()) < 25e6


def test_every_word_of_the_captions_is_one_token_and_other_text_is_bytes():
    tokenizer = CLIPTokenizer.from_pretrained(WORLD / "tokenizer")
    for word in WORDS:
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1, word
    ids = tokenizer.encode("zebra café", add_special_tokens=False)
    assert tokenizer.decode(ids).strip() == "zebra café"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("a photo of a", SPECIES),
        ("a photo of a", COLORS),
        ("a rabbit with a", HATS[1:]),
        ("a rabbit in the", SCENES),
        ("a rabbit on the", ("left", "right")),
        ("a rabbit at the", ("top", "bottom")),
        ("a rabbit arms", ("up", "down")),
    ],
)
def test_words_that_must_be_told_apart_are_apart(before, words):
    """A contrastive loss alone leaves left and right at a cosine of 0.998."""
    base = load("world", "cpu")
    place = 1 + len(before.split())
    states = base.condition(base.tokenize([f"{before} {w}" for w in words], []))[:, place]
    for a, b in combinations(range(len(words)), 2):
        assert torch.cosine_similarity(states[a], states[b], dim=0) < 0.9, (words[a], words[b])


def test_the_reader_reads_clean_renders():
    factors = sample_factors(300, np.random.default_rng(77), held_out=True)
    pixels = torch.from_numpy(render(factors)).permute(0, 3, 1, 2).float() / 127.5 - 1
    read, true = load_reader().read(pixels), class_targets(factors)
    for name, least in {"scene": 0.99, "color": 0.93, "column": 0.95, "arms": 0.93}.items():
        assert (read[name] == true[name]).float().mean() >= least, name
    places = place_targets(factors)
    assert (read["x"] - places[:, 0]).abs().mean() < 0.02
    assert (read["y"] - places[:, 1]).abs().mean() < 0.02


def test_obedience_on_a_few_samples():
    """``pti world check`` measures the gates on more; this asks for no less."""
    base = load("world", "cpu")
    samples = joined(list(sample_base(base, captions(64)[1], SampleSettings(15, 3.0))))
    shares = {m.name: m.value for m in obedience(load_reader(), samples)}
    assert min(shares["color"], shares["scene"], shares["column"]) >= 0.85


def test_both_towers_of_clip_know_the_world():
    model = CLIPModel.from_pretrained(WORLD / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(WORLD / "tokenizer")
    factors = sample_factors(60, np.random.default_rng(5))
    pixels = torch.from_numpy(render(factors)).permute(0, 3, 1, 2).float() / 127.5 - 1
    texts = [f"a picture of a {COLORS[c]} character" for c in range(len(COLORS))]
    batch = tokenizer(texts, padding="max_length", max_length=32, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, pixel_values=pixels).logits_per_image
    right = logits.argmax(1) == torch.from_numpy(factors.color)
    assert right.float().mean() > 0.5  # chance is 0.11
    base = load("world", "cpu")
    for name, value in base.text_encoders[0].state_dict().items():
        assert torch.equal(model.text_model.state_dict()[name], value)
