"""Likeness by tiny CLIP and DINO models; oracles are transformers' own outputs."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from pti_pipeline.errors import ModelError
from pti_pipeline.families import WORLD
from pti_pipeline.features import (
    load_clip,
    load_dino,
    load_world_clip,
    subject_features,
    text_similarities,
)

CPU = torch.device("cpu")


@pytest.fixture
def clip(clip_folder):
    return load_clip(str(clip_folder), CPU)


@pytest.fixture
def dino(dino_folder):
    return load_dino(str(dino_folder), CPU)


def pictures(n=3, side=16):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def whole(images):
    return torch.ones(len(images), *images.shape[2:], dtype=torch.bool)


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_identical_pictures_are_as_like_as_can_be(kind, request):
    vision, images = request.getfixturevalue(kind), pictures()
    one, two = (subject_features(vision, images, whole(images)) for _ in range(2))
    torch.testing.assert_close((one * two).sum(1), torch.ones(3))
    assert float((one[0] * one[1]).sum()) < 0.999


def test_features_are_those_of_the_model_at_its_own_size_mean_and_spread(clip, dino):
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    for vision, side in ((clip, 16), (dino, 24)):
        images = pictures(side=side)
        pixels = ((images + 1) / 2 - mean) / std
        if vision is clip:
            expected = vision.model.get_image_features(pixel_values=pixels).pooler_output
        else:
            expected = vision.model(pixel_values=pixels).last_hidden_state[:, 0]
        found = subject_features(vision, images, whole(images))
        torch.testing.assert_close(found, F.normalize(expected, dim=-1), rtol=1e-4, atol=1e-5)


def test_place_size_and_background_do_not_count(dino):
    small, large = torch.full((2, 1, 3, 48, 48), 0.3)
    patch = pictures(1, 8)[0]
    small[0, :, 4:12, 30:38] = patch
    large[0, :, 10:34, 2:26] = F.interpolate(patch[None], 24, mode="nearest")[0]
    masks = torch.zeros(2, 1, 48, 48, dtype=torch.bool)
    masks[0, :, 4:12, 30:38] = masks[1, :, 10:34, 2:26] = True
    moved, other = small.roll(-20, 3), small.clone()
    other[~masks[0][:, None].expand_as(small)] = -1
    first = subject_features(dino, small, masks[0])
    same = subject_features(dino, moved, masks[0].roll(-20, 2))
    torch.testing.assert_close(first, same)
    torch.testing.assert_close(first, subject_features(dino, other, masks[0]))
    enlarged = float((first * subject_features(dino, large, masks[1])).sum())
    unmasked = float((first * subject_features(dino, small, whole(small))).sum())
    assert enlarged > 0.995 > unmasked


def test_an_empty_mask_gives_no_number(dino):
    images = pictures(2)
    masks = whole(images)
    masks[1] = False
    found = subject_features(dino, images, masks)
    assert found[0].isfinite().all() and found[1].isnan().all()
    assert subject_features(dino, images, masks & False).isnan().all()


def test_likeness_to_texts_is_the_models_own(clip):
    images, texts = pictures(), ["a photo of cat", "dog", "a photo of cat"]
    mean, std = clip.mean, clip.std
    batch = clip.tokenizer(texts, padding=True, return_tensors="pt")
    output = clip.model(**batch, pixel_values=((images + 1) / 2 - mean) / std)
    expected = F.normalize(output.image_embeds) @ F.normalize(output.text_embeds).T
    found = text_similarities(clip, images, texts)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_worlds_clip_knows_its_pictures():
    from pti_pipeline.world.render import render
    from pti_pipeline.world.subjects import MOCHI, views

    factors = views(MOCHI, 8)
    images = torch.from_numpy(render(factors)).permute(0, 3, 1, 2).float() / 127.5 - 1
    vision = load_world_clip(WORLD, CPU)
    texts = ["a purple rabbit with a yellow crown", "a green robot with a red cap"]
    right, wrong = text_similarities(vision, images, texts).T
    assert (right > wrong).all()


def test_models_that_can_not_read_are_told_in_one_line(clip_folder, dino_folder, tmp_path):
    bare, pickled = tmp_path / "bare", tmp_path / "pickled"
    shutil.copytree(clip_folder, bare)
    (bare / "preprocessor_config.json").unlink()
    shutil.copytree(dino_folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    lost = tmp_path / "lost"
    shutil.copytree(dino_folder, lost)
    (lost / "preprocessor_config.json").write_text(json.dumps({"size": 24}))
    cases = [
        (load_clip, dino_folder),
        (load_clip, bare),
        (load_dino, lost),
        (load_dino, tmp_path / "none"),
    ]
    for load, folder in cases:
        with pytest.raises(ModelError) as caught:
            load(str(folder), CPU)
        text = str(caught.value)
        assert caught.value.code == "E413" and str(folder.name) in text and "\n" not in text
    with pytest.raises(ModelError, match=r"E410.*'pytorch_model.bin' may hold a pickle"):
        load_dino(str(pickled), CPU)
