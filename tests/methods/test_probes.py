"""Distances between functions against their definition; gains over twins with a known answer."""

import pytest
import torch

from pti_pipeline import lora
from pti_pipeline.data import load_subject
from pti_pipeline.families import load
from pti_pipeline.losses import denoising_loss, masked_loss
from pti_pipeline.preview import WatchSettings
from pti_pipeline.probes import FAMILIES, TERCILES, Reading, build_probe, encode_probe, read
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.steps.world_pictures import save_pictures
from pti_pipeline.twins import make_twins
from pti_pipeline.watching import function_distance, gains, judge, position_learnt, watch_steps
from pti_pipeline.world.render import render
from pti_pipeline.world.subjects import MOCHI, views


def probe_of(base, pictures, families=FAMILIES):
    subject = load_subject(pictures, 16)
    return build_probe(base, subject, make_twins(subject, pictures), "<c>", 2, "cat", families)


@pytest.fixture
def vectors(base):
    return base.initializer_row("cat").expand(2, -1).clone()


def randomised(base, experiments):
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, list(range(experiments)))
    source = torch.Generator().manual_seed(0)
    for layer in adapter.layers.values():
        layer.up.data = torch.randn(layer.up.shape, generator=source).to(layer.up) * 0.05
    return adapter


def test_the_function_distance_is_its_definition_on_merged_weights(double_base, pictures, vectors):
    base = double_base
    probe = probe_of(base, pictures)
    states = encode_probe(base, probe, vectors.double())
    before = read(base, probe, states)
    adapter = randomised(base, 1)
    for layer in adapter.layers.values():
        layer.down.data, layer.up.data = layer.down.double(), layer.up.double()
    ours = function_distance(probe, read(base, probe, states), before)
    lora.detach(adapter)
    rows, moved, size = probe.function, {}, {}
    labels = [
        (family, tercile)
        for family in FAMILIES
        for tercile in TERCILES
        for _ in range(len(rows.noisy) // len(FAMILIES) // len(TERCILES))
    ]
    plain = [answer(base, rows, states, i) for i in range(len(labels))]
    with torch.no_grad():
        for layer in adapter.layers.values():
            layer.linear.weight += layer.scale * (layer.up[0] @ layer.down[0])
    merged = [answer(base, rows, states, i) for i in range(len(labels))]
    for (family, tercile), tuned, usual in zip(labels, merged, plain, strict=True):
        for name in ("", f"_{family}", f"_{tercile}"):
            moved[name] = moved.get(name, 0) + float((tuned - usual).square().sum())
            size[name] = size.get(name, 0) + float(usual.square().sum())
    assert set(ours) == {f"distance/function{name}" for name in moved}
    for name in moved:
        definition = moved[name] / size[name]
        assert definition > 1e-6
        assert ours[f"distance/function{name}"] == pytest.approx(definition, rel=1e-6)


@torch.no_grad()
def answer(base, rows, states, i):
    one = slice(i, i + 1)
    return base.predict(rows.noisy[one], rows.timesteps[one], states[rows.prompts[one]])


def test_a_lora_at_its_start_is_at_distance_zero_and_gained_nothing(base, pictures, vectors):
    probe = probe_of(base, pictures)
    states = encode_probe(base, probe, vectors)
    before = read(base, probe, states)
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    now = read(base, probe, states)
    lora.detach(adapter)
    assert set(function_distance(probe, now, before).values()) == {0.0}
    assert set(gains(now, before).values()) == {0.0}


def test_the_class_words_own_vector_is_the_class_word(base, pictures):
    subject = load_subject(pictures, 16)
    twins = make_twins(subject, pictures)
    probe = build_probe(base, subject, twins, "<c>", 1, "cat", FAMILIES[:1])
    before = read(base, probe, encode_probe(base, probe, None))
    start = base.initializer_row("cat")[None]
    now = read(base, probe, encode_probe(base, probe, start))
    at_start = function_distance(probe, now, before)["distance/function"]
    dog = base.initializer_row("dog")[None]
    moved = read(base, probe, encode_probe(base, probe, dog))
    assert function_distance(probe, moved, before)["distance/function"] > 1e4 * at_start
    assert probe.function.groups == ("pivot",)


def test_each_experiment_of_a_pack_is_read_as_if_alone(base, pictures, vectors):
    probe = probe_of(base, pictures)
    states = encode_probe(base, probe, vectors)
    before = read(base, probe, states)
    adapter = randomised(base, 2)
    rows = []
    for k in range(2):
        with lora.only(adapter, slice(k, k + 1)):
            rows.append(read(base, probe, states))
    both = judge(probe, rows, [before] * 2, [FinetuneSettings()] * 2, torch.zeros(2).bool(), 7)
    single = [lora.peft_state(adapter, k) for k in range(2)]
    lora.detach(adapter)
    config = {"r": 2, "lora_alpha": 2.0, "target_modules": TARGETS}
    for k, state in enumerate(single):
        alone = lora.attach_states(base.denoiser, [state], config)
        reading = read(base, probe, states)
        lora.detach(alone)
        expected = function_distance(probe, reading, before) | gains(reading, before)
        assert both[k] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def planted(**gained):
    """Readings before and after a training that gained ``gained`` on each kind of picture."""
    noise = torch.linspace(-0.01, 0.01, 6).double()
    before = {kind: torch.full((6,), 0.5).double() + noise for kind in gained}
    now = {kind: before[kind] - torch.as_tensor(value) for kind, value in gained.items()}
    nothing = torch.zeros(1)
    return Reading(now, nothing), Reading(before, nothing)


def test_gains_of_a_model_that_learnt_the_character_alone():
    row = gains(*planted(train=0.1, all=0.1, position=0.1, pose=0.1, scene=0.1))
    assert row.pop("twins/appearance") == pytest.approx(0.2)
    assert list(row.values()) == pytest.approx([0.0] * 4)


def test_appearance_is_gained_on_the_characters_own_latents_where_they_are_known():
    now, before = planted(train=0.1, all=-0.05, position=0.1, pose=0.1, scene=0.1, subject=0.05)
    row = gains(now, before)
    assert row["twins/appearance"] == pytest.approx(0.1)
    assert row["twins/memorised"] == pytest.approx(0.3)
    assert "twins/subject" not in row


def test_the_masked_loss_is_that_of_the_pixels_that_count():
    target, wrong = torch.zeros(2, 3, 4, 2, 2), torch.zeros(2, 3, 4, 2, 2)
    wrong[..., 0, 0] = 2.0
    wrong[..., 1, 1] = 7.0
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(3, 1, 2, 2).clone()
    assert torch.equal(masked_loss(wrong, target, weights), torch.full((2, 3), 4.0))
    weights[1] = 0
    assert masked_loss(wrong, target, weights)[:, 1].tolist() == [0.0, 0.0]
    whole = torch.ones(3, 1, 2, 2)
    rows = denoising_loss(wrong.flatten(0, 1), target.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(masked_loss(wrong, target, whole), rows)


def test_a_probe_of_renders_reads_the_characters_own_latents(tmp_path):
    base = load("world", "cpu")
    factors = views(MOCHI, 2)
    save_pictures(render(factors, 48), factors, tmp_path)
    subject = load_subject(tmp_path, 48)
    twins = make_twins(subject, tmp_path)
    probe = build_probe(base, subject, twins, "<c>", 1, "rabbit")
    assert probe.masks.shape == (2, 1, 12, 12) and 0.05 < float(probe.masks.mean()) < 0.5
    reading = read(base, probe, encode_probe(base, probe, None))
    assert float((reading.losses["subject"] - reading.losses["all"]).abs().min()) > 0.01


def test_gains_of_a_model_that_learnt_positions_and_scenes_too():
    row = gains(*planted(train=0.1, all=0.04, position=0.06, pose=0.1, scene=0.08))
    assert row == pytest.approx(
        {
            "twins/appearance": 0.08,
            "twins/memorised": 0.12,
            "twins/position": 0.08,
            "twins/pose": 0.0,
            "twins/scene": 0.04,
        }
    )


def test_a_training_stops_where_its_positions_are_learnt_beyond_chance(base, pictures, vectors):
    spread = torch.tensor([0.02, -0.02, 0.01]).double()
    probe = probe_of(base, pictures)
    before = read(base, probe, encode_probe(base, probe, vectors))

    def gained(train):
        losses = before.losses | {"train": before.losses["train"] - train}
        return Reading(losses, before.answers)

    before.losses["position"] = before.losses["train"]
    chance, learnt = gained(spread - spread.mean()), gained(0.15 + spread)
    assert not position_learnt(chance, before)
    assert position_learnt(learnt, before)
    stop = torch.zeros(3, dtype=torch.bool)
    watched = [FinetuneSettings(stop_at_leak=w) for w in (True, False, True)]
    for step, expected in ((49, [False] * 3), (50, [True, False, False])):
        judge(probe, [learnt, learnt, chance], [before] * 3, watched, stop, step)
        assert stop.tolist() == expected


def test_one_picture_is_too_few_to_tell():
    one = Reading({k: torch.zeros(1).double() for k in ("train", "position")}, torch.zeros(1))
    two = Reading(
        {"train": torch.ones(1).double(), "position": torch.zeros(1).double()}, one.answers
    )
    assert not position_learnt(one, two)


def test_steps_that_are_watched():
    plain, careful = InvertSettings(steps=200), InvertSettings(steps=200, stop_at_leak=True)
    assert watch_steps(WatchSettings(probes=0), [plain]) == set()
    assert watch_steps(WatchSettings(probes=0), [plain, careful]) == {50, 100, 150}
    assert watch_steps(WatchSettings(probes=3), [plain]) == {1, 14, 200}
