"""The world's training: seeded, resumable, and able to learn."""

import copy
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKL
from filelock import FileLock
from torch import nn
from transformers import CLIPTokenizer

from pti_pipeline.checkpoint import newest, save
from pti_pipeline.errors import LockedError, UsageError
from pti_pipeline.randomness import generator
from pti_pipeline.steps.world_training import follow, follow_training, train_world
from pti_pipeline.steps.world_training.autoencoder import (
    new_autoencoder,
    train_autoencoder,
    train_decoder,
    whiten,
)
from pti_pipeline.steps.world_training.corpus import build_corpus, load_corpus
from pti_pipeline.steps.world_training.denoiser import (
    SUBJECT_WEIGHT,
    DenoiserThatReads,
    draw_timesteps,
    new_denoiser,
    train_denoiser,
    weigh,
)
from pti_pipeline.steps.world_training.loop import Descent, Schedule, train
from pti_pipeline.steps.world_training.text_tower import train_text_tower
from pti_pipeline.steps.world_training.tokenizer import build_tokenizer, merge_rules
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.world import WORDS
from pti_pipeline.world.reader import CLASSES


def regression(folder, stop=None):
    """Fit a linear map; stop after ``stop`` updates as a killed process would."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(step, rows):
        x = torch.randn(rows, 3, generator=generator(0, "x", step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    schedule = Schedule(steps=60, batch=8, lr=1.0, decay=0.9)
    for progress in train("line", model, loss, schedule, folder, log_every=10, save_seconds=0):
        if progress.step == stop:
            return None
    return model


def test_resumed_training_is_bit_identical(tmp_path):
    whole = regression(tmp_path / "whole")
    for stop in (10, 30):
        regression(tmp_path / "cut", stop)
    resumed = regression(tmp_path / "cut")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True)
    )
    assert float((whole.weight - 1).detach().abs().max()) < 0.5


def test_kernels_go_by_muon_and_all_else_by_adamw():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.LazyLinear(3))
    picture = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    model(picture)
    twin = copy.deepcopy(model)
    descent = Descent(model, lr=0.01)
    others = [p for p in twin.parameters() if p.ndim == 1]
    adamw = torch.optim.AdamW(others, 0.01, betas=(0.9, 0.99), weight_decay=1e-4)
    for _ in range(3):
        for net in (model, twin):
            net(picture).square().mean().backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        before = [kernel.detach().clone() for kernel in descent.kernels]
        descent.step(0.01)
        adamw.step()
        for kernel, was, mirror in zip(
            descent.kernels, before, (twin[0].weight, twin[3].weight), strict=True
        ):
            # near the nearest orthogonal matrix: every singular value about as large as the others
            spread = torch.linalg.svdvals((kernel - was).detach().flatten(1))
            assert spread.min() > 0.5 * spread.max()
            assert spread.max() < 1.3 * 0.2 * 0.01 * max(kernel.flatten(1).shape) ** 0.5
            mirror.data.copy_(kernel)
        twin.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        for mine, reference in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(mine, reference)


def test_half_of_the_timesteps_favor_the_middle():
    drawn = draw_timesteps(1000, 40_000, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64 and drawn.min() >= 0 and drawn.max() <= 999
    share = torch.histc(drawn.double(), 10, 0, 1000) / len(drawn)
    # logit-normal: P(0.4 < sigmoid(z) < 0.5) = Phi(0) - Phi(logit 0.4) = 0.157
    assert float(share[4]) == pytest.approx((0.1 + 0.157) / 2, abs=0.01)
    assert float(share[0]) == pytest.approx((0.1 + 0.014) / 2, abs=0.005)


def test_the_learning_rate_rises_stays_and_falls():
    schedule = Schedule(steps=1000, batch=1, lr=1.0, flat=0.6)
    assert schedule.lr_at(0) == pytest.approx(1 / 200)
    assert schedule.lr_at(300) == schedule.lr_at(599) == 1.0
    assert schedule.lr_at(800) == pytest.approx(0.5)
    assert schedule.lr_at(999) == 0.02


def test_merges_leave_every_word_whole_whatever_their_order(tmp_path):
    for index, words in enumerate((WORDS, WORDS[::-1])):
        tokenizer = build_tokenizer(words, tmp_path / str(index))
        assert all(len(tokenizer.encode(w, add_special_tokens=False)) == 1 for w in words)
    assert merge_rules(["ab", "abc"]) == [("a", "b</w>"), ("a", "b"), ("ab", "c</w>")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    assert list(build_corpus(folder, "corpus", 64, 48, 0, False)) == [64]
    assert list(build_corpus(folder, "corpus", 64, 48, 0, False)) == []
    return load_corpus(folder, "corpus", 0)


def test_whitened_latents_have_unit_spread_and_the_same_pictures(corpus):
    model = new_autoencoder(48).eval()
    with torch.no_grad():  # an untrained posterior is as wide as the prior; a trained one is not
        model.quant_conv.bias[8:] -= 12
        pixels = corpus.pixels(torch.arange(64))
        before = model.decode(model.encode(pixels).latent_dist.mean).sample
        whiten(model, corpus, 512)
        posterior = model.encode(pixels).latent_dist
        after = model.decode(posterior.mean).sample
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)
    assert (posterior.mean.std((0, 2, 3)) - 1).abs().max() < 0.1


def test_channels_that_the_decoder_ignores_are_silenced(corpus):
    model = new_autoencoder(48).eval()
    with torch.no_grad():
        model.quant_conv.bias[8:] -= 12
        model.quant_conv.bias[8 + 3] += 30  # a posterior far wider than the data
        whiten(model, corpus, 64)
        posterior = model.encode(corpus.pixels(torch.arange(8))).latent_dist
    assert float(posterior.mean[:, 3].abs().max()) == 0
    assert float(posterior.std[:, 3].max()) < 0.02


def test_the_text_tower_learns_to_tell_left_from_right(corpus, tmp_path):
    tokenizer = build_tokenizer(WORDS, tmp_path / "tokenizer")
    schedule = Schedule(steps=30, batch=32, lr=2e-3)
    losses = [p.loss for p in train_text_tower(tokenizer, corpus, tmp_path, schedule)]
    assert (tmp_path / "text_encoder" / "model.safetensors").is_file()
    assert losses and isinstance(CLIPTokenizer.from_pretrained(tmp_path / "tokenizer"), object)


def test_unknown_parts_are_refused(tmp_path):
    with pytest.raises(UsageError, match="E206"):
        next(train_world(tmp_path, ["nothing"]))


def test_a_folder_has_room_for_one_training(store, tmp_path):
    folder = tmp_path / "world"
    folder.mkdir()
    with FileLock(folder / "lock"), pytest.raises(LockedError, match="E701") as caught:
        follow_training(folder, ["text_tower"], 0, 1)
    assert caught.value.exit_code == 7 and find_runs() == []
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_training_is_followed_in_a_run_of_its_own(store, tmp_path, capsys):
    layer = nn.Linear(4, 1)
    nn.init.constant_(layer.weight, 0.25)  # a loss of 1
    nn.init.zeros_(layer.bias)

    def loss(step, count):
        return layer(torch.ones(count, 4)).square().mean()

    training = train("small", layer, loss, Schedule(steps=30, batch=4, lr=0.5), tmp_path, 10)
    follow(training, {"parts": "small", "seed": 0})
    (run,) = find_runs()
    assert run.status == "FINISHED" and run.params["parts"] == "small"
    assert run.metrics["small/loss"] < 0.1 and run.metrics["small/samples_per_second"] > 0
    assert "small" in capsys.readouterr().err


@pytest.mark.slow
def test_libraries_are_quiet_where_parts_are_loaded():
    """In a process that has opened no base model."""
    code = (
        "from transformers import CLIPTextModel\n"
        "from pti_pipeline.families import WORLD\n"
        "from pti_pipeline.steps.world_training.saved import load_part\n"
        "load_part(CLIPTextModel, WORLD / 'text_encoder')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Loading" not in done.stderr + done.stdout


def test_only_the_decoder_learns_in_the_decoders_training(corpus, tmp_path):
    before = new_autoencoder(48)
    before.save_pretrained(tmp_path / "vae")
    short = Schedule(steps=12, batch=8, lr=2e-3)
    losses = [p.loss for p in train_decoder(corpus, tmp_path, short)]
    after = AutoencoderKL.from_pretrained(tmp_path / "vae")
    for name, value in after.state_dict().items():
        same = torch.equal(value, before.state_dict()[name])
        assert same == name.startswith(("encoder.", "quant_conv.")), name
    assert losses


def test_the_character_weighs_more_than_the_scene(corpus):
    weight = weigh(corpus.masks[:8], 12)
    assert weight.shape == (8, 1, 12, 12) and weight.mean() == pytest.approx(1, abs=1e-5)
    inside = corpus.masks[:8, None].float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    full, empty = weight[inside == 1].mean(), weight[inside == 0].mean()
    assert full / empty == pytest.approx(SUBJECT_WEIGHT, rel=1e-4)


def test_the_denoisers_heads_teach_its_middle_and_leave_the_unet_as_it_is(corpus):
    unet = new_denoiser(12)
    model = DenoiserThatReads(unet, 12)
    draws = generator(0, "test", 0)
    noisy, states = torch.randn(2, 8, 12, 12, generator=draws), torch.randn(2, 32, 128)
    times = torch.tensor([10, 900])
    velocity, read = model(noisy, times, states)
    assert torch.equal(velocity, unet(noisy, times, states).sample)
    assert {k: v.shape for k, v in read.items()} == {k: (2, n) for k, n in CLASSES.items()}
    read["species"].sum().backward()
    assert unet.mid_block.resnets[0].conv1.weight.grad.abs().sum() > 0
    assert unet.conv_out.weight.grad is None


@pytest.mark.slow
def test_two_hundred_updates_of_the_denoiser_repeat_bit_by_bit(corpus, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        tokenizer = build_tokenizer(WORDS, folder / "tokenizer")
        short = Schedule(steps=5, batch=8, lr=1e-3)
        list(train_text_tower(tokenizer, corpus, folder, short))
        list(train_autoencoder(corpus, folder, short))
        list(train_denoiser(tokenizer, corpus, folder, Schedule(200, 8, 1e-3, decay=0.99)))
    torch.set_num_threads(threads)
    for name in ("text_tower", "autoencoder", "denoiser"):
        one, two = (newest(folder / f"{name}.state").tensors for folder in folders)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name


def test_a_short_training_of_chosen_parts(tmp_path):
    parts = ["text_tower", "autoencoder", "denoiser"]
    seen = list(train_world(tmp_path, parts, seed=1, images=32, updates=2))
    assert [(p.part, p.step, p.steps) for p in seen[2:]] == [(part, 2, 2) for part in parts]
    assert (tmp_path / "unet" / "config.json").is_file() and not (tmp_path / "clip").exists()


def test_state_and_pictures_of_another_version_are_told(tmp_path):
    list(train_world(tmp_path, ["text_tower"], images=32, updates=2))
    with pytest.raises(UsageError, match=r"E222.*corpus.npz"):
        list(train_world(tmp_path, ["text_tower"], images=64, updates=2))
    path = tmp_path / "text_tower.state"
    known = newest(path)
    kept = {n: t for n, t in known.tensors.items() if not n.startswith("optimizer/muon")}
    save(path, known.step, kept)
    with pytest.raises(UsageError, match=r"E222.*text_tower"):
        list(train_world(tmp_path, ["text_tower"], images=32, updates=4))
