"""Masks and layouts on a base that is not the world, where no factor is known."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pti_pipeline import comparison, evaluation, lora, masks, sharing
from pti_pipeline import meter as m
from pti_pipeline.characters import Characters, class_word
from pti_pipeline.comparison import compare
from pti_pipeline.families import WORLD, load
from pti_pipeline.readers import load_readers, read_edits, reader_names
from pti_pipeline.settings import TARGETS, BaseSettings, SampleSettings
from pti_pipeline.world.factors import SCENES
from pti_pipeline.world.render import render
from pti_pipeline.world.subjects import MOCHI, views


def photo_meter(tiny_folder, pictures, clip="", dino="", samples=8):
    where = BaseSettings(str(tiny_folder), "cpu")
    return m.Meter(where, pictures, "cat", samples, 1, SampleSettings(2), str(clip), str(dino))


def token(meter):
    base = m.equipment(meter).base
    return m.Case(Characters("<c>", base.initializer_row("dog")[None, None]))


def test_attention_finds_the_figures_that_the_palette_finds():
    base = load(str(WORLD), "cpu")
    pixels = render(views(MOCHI, 16))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    truth = masks.palette_masks(images)
    found = masks.attention_masks(base, class_word("rabbit"), images)
    assert found.shape == truth.shape and found.dtype == bool
    overlap = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2))
    assert overlap.mean() > 0.3  # maps of 6 x 6 can't do much better
    shuffled = np.roll(found, 1, axis=0)
    assert (
        overlap.mean()
        > 2 * ((shuffled & truth).sum((1, 2)) / (shuffled | truth).sum((1, 2))).mean()
    )


def test_a_photo_base_gets_its_metrics(tiny_folder, pictures, clip_folder, dino_folder):
    meter = photo_meter(tiny_folder, pictures, clip_folder, dino_folder)
    (word,), (own,) = (m.measure(meter, c) for c in (m.Case(class_word("cat")), token(meter)))
    row, missing = compare(meter, own, {"class": word, "pivot": word})
    assert {
        "reconstruction/clip_i",
        "reconstruction/dino_relative",
        "editability/clip_t",
        "overpowering/relative",
        "leak/class_auc",
        "leak/pivot_p",
        "leak/background_class_auc",
        "leak/empty_masks",
        "diversity/positions",
        "reconstruction/ssim_masked",
    } <= set(row)
    assert set(missing) <= {"pti.absent.editability"} and "editability/obedience" not in row
    assert ("editability/relative" in row) is not bool(missing)
    same, _ = compare(meter, word, {"class": word})
    assert same["leak/class_auc"] == same["leak/background_class_auc"] == 0.5
    assert same["reconstruction/clip_i_relative"] == same["editability/clip_t_relative"] == 1


def test_what_is_read_crosses_processes_as_arrays(tiny_folder, pictures, clip_folder, dino_folder):
    meter = photo_meter(tiny_folder, pictures, clip_folder, dino_folder)
    (own,) = m.measure(meter, token(meter))
    parcel = sharing._parcel(token(meter))
    (plain,), ((edits, bank, grid),) = sharing._plain(meter, parcel), sharing._rest(meter, parcel)
    assert all(type(value) is np.ndarray for value in (*plain.values(), *edits.values(), grid))
    for name, value in own.plain.items():
        torch.testing.assert_close(value, torch.from_numpy(plain[name]), equal_nan=True)
    assert set(plain) == {"layout", "background", "clip", "dino"} and set(edits) == {
        "clip_t",
        "clip_t_other",
    }
    assert bank == own.bank


def test_a_lora_as_a_file_made_elsewhere_measures_as_our_own(tiny_folder, pictures, tmp_path):
    meter = photo_meter(tiny_folder, pictures)
    base, who = m.equipment(meter).base, token(meter).who
    adapter = lora.attach(base.denoiser, 2, 6.0, TARGETS, [0])
    for layer in adapter.layers.values():
        layer.up.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    state = lora.peft_state(adapter, 0)
    lora.detach(adapter)
    config = {"r": 2, "lora_alpha": 6.0, "target_modules": list(TARGETS)}
    base.save_lora(state, config, tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    (bare,) = m.measure(meter, m.Case(who))
    (own,) = m.measure(meter, m.Case(who, (state,), config))
    parcel = sharing._parcel(m.Case(who, file=path))
    (plain,), ((_, bank, _),) = sharing._plain(meter, parcel), sharing._rest(meter, parcel)
    assert bank == pytest.approx(own.bank, rel=1e-4)
    assert bank["reconstruction/bank_loss"] != bare.bank["reconstruction/bank_loss"]
    torch.testing.assert_close(
        torch.from_numpy(plain["layout"]), own.plain["layout"], atol=1e-2, rtol=0
    )


def test_without_models_their_numbers_are_absent(tiny_folder, pictures):
    meter = photo_meter(tiny_folder, pictures)
    kit = m.equipment(meter)
    (own,) = m.measure(meter, token(meter))
    row, _ = compare(meter, own, {"class": own})
    assert not own.edits
    assert not [name for name in row if "clip" in name or "dino" in name or "editab" in name]
    names = reader_names(kit.readers, kit.subject)
    assert names["pti.reader.leak"] == "cross-attention masks of 'cat'"
    assert "pti.reader.editability" not in names


def test_editability_is_the_margin_by_which_samples_show_what_was_asked():
    """Of clean renders in their scenes, by the world's own CLIP model."""
    readers = load_readers(load("world", "cpu"), "rabbit")
    scenes = {"in the forest": "forest", "in the snow": "snow", "on the beach": "beach"}
    shown = np.array([SCENES.index(name) for name in scenes.values()])
    pixels = render(replace(views(MOCHI, 3), scene=shown))
    drawn = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    prompts = [f"{{}} {words}" for words in scenes]
    right = read_edits(readers, drawn, prompts)
    assert evaluation.margin(right) > 0.05
    deaf = read_edits(readers, drawn[:1].expand(3, -1, -1, -1), prompts)
    assert evaluation.margin(deaf) == pytest.approx(0, abs=1e-6)
    assert right["clip_t_other"].shape == (3,)
    mixed = {name: (right[name] + deaf[name]) / 2 for name in right}
    measured = [
        m.Measured({}, edits, {}, np.zeros((1, 1, 3), np.uint8)) for edits in (mixed, right, deaf)
    ]
    row, _ = comparison._edits(*measured[:2])
    assert row["editability/relative"] == pytest.approx(0.5, abs=1e-5)
    deaf["clip_t_other"] += 0.1
    assert comparison._edits(measured[0], measured[2])[1].keys() == {"pti.absent.editability"}


def test_readers_are_named(tiny_folder, pictures, clip_folder, dino_folder):
    kit = m.equipment(photo_meter(tiny_folder, pictures, clip_folder, dino_folder))
    names = reader_names(kit.readers, kit.subject)
    assert "CLIP tiny-clip; DINO tiny-dino" in names["pti.reader.reconstruction"]
    assert names["pti.reader.editability"] == "CLIP tiny-clip"
    mochi = Path(__file__).parents[2] / "examples" / "mochi"
    world = m.Meter(BaseSettings("world", "cpu"), mochi, "rabbit", 8, 1, SampleSettings(2))
    kit = m.equipment(world)
    names = reader_names(kit.readers, kit.subject)
    assert names["pti.reader.editability"] == "world factor reader; CLIP world"
    assert names["pti.reader.leak"] == "world factor reader"


def test_masks_that_come_with_the_pictures_go_first(tiny_folder, pictures, tmp_path):
    folder = tmp_path / "masked"
    shutil.copytree(pictures, folder)
    given = np.zeros((20, 24), np.uint8)
    given[:10] = 255
    Image.fromarray(given).save(folder / "1-mask.png")
    meter = photo_meter(tiny_folder, folder)
    kit = m.equipment(meter)
    assert kit.masks[1][:8].all() and not kit.masks[1][8:].any()
    assert kit.training["layout"][1, 1] == pytest.approx(0.25)
    found = masks.attention_masks(kit.base, class_word("cat"), kit.subject.images)
    assert (kit.masks[0] == found[0]).all()
    names = reader_names(kit.readers, kit.subject)
    assert names["pti.reader.leak"] == "cross-attention masks of 'cat', 1 of 3 given"


def test_samples_without_a_mask_are_counted_and_too_few_are_told(
    tiny_folder, pictures, monkeypatch
):
    meter = photo_meter(tiny_folder, pictures, samples=10)
    kit = m.equipment(meter)
    seen = masks.heat

    def blind(base, who, images):
        maps = seen(base, who, images)
        if len(images) == meter.samples:
            maps[:empty] = 0
        return maps

    monkeypatch.setattr(masks, "heat", blind)
    assert len(kit.training["layout"]) == 3
    for empty, told in ((0, False), (2, False), (3, True)):
        (own,) = m.measure(meter, token(meter))
        row, missing = compare(meter, own, {"class": own})
        assert row["leak/empty_masks"] == empty
        assert ("leak/class_auc" not in row) is told
        assert (missing.get("pti.absent.leak.layout", "")[:23] == "only 7 of 10 samples ha") is told


def test_scenes_leak_when_samples_show_the_training_scenes_oftener():
    rng = np.random.default_rng(0)
    even = torch.from_numpy(rng.integers(0, len(SCENES), 64))
    training = torch.tensor([1, 1, 4])
    copied = even.clone()
    copied[:20] = 1
    none = evaluation.scene_leak(even, {"class": even}, training)
    share = float(((even == 1) | (even == 4)).float().mean())
    assert none == {
        "leak/scene_share": pytest.approx(share),
        "leak/scene_class_share": pytest.approx(share),
        "leak/scene_class_p": 1.0,
    }
    some = evaluation.scene_leak(copied, {"class": even, "pivot": copied}, training)
    assert some["leak/scene_class_p"] < 0.001 and some["leak/scene_pivot_p"] == 1
    assert evaluation.scene_leak(copied, {"class": even}, torch.arange(len(SCENES))) == {}


def test_layouts_that_copy_the_training_pictures_leak():
    rng = np.random.default_rng(0)
    base, training = rng.normal(size=(128, 5)), rng.normal(size=(4, 5))
    copies = base.copy()
    copies[:64] = training[rng.integers(0, 4, 64)] + 0.05 * rng.normal(size=(64, 5))
    base[100] = copies[101] = np.nan
    found = evaluation.leaks(copies, {"class": base}, training)
    assert found["leak/class_auc"] > 0.7 and found["leak/class_p"] < 1e-6
    assert evaluation.too_few(copies, {"class": base}, training) == ""
    assert "training" in evaluation.too_few(copies, {"class": base}, training * np.nan)
