"""What a training sees of a subject."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pti_pipeline.aspect import shapes
from pti_pipeline.batches import draw_batch, prepare, prepare_views
from pti_pipeline.data import Subject, load_subject, patterns_of, prompts_for
from pti_pipeline.errors import DataError
from pti_pipeline.losses import denoising_loss
from pti_pipeline.objective import Objective
from pti_pipeline.views import area_weights, by_shape, check, crops, mirrored, shaped


@pytest.fixture
def left():
    """A mask of the left quarter."""
    mask = np.zeros((32, 32), bool)
    mask[:, :8] = True
    return mask


def test_the_background_weighs_what_was_asked_and_a_picture_one(left):
    weights = area_weights([left, None, left[:, ::-1].copy()], (8, 8), 0.2)
    assert weights.shape == (3, 1, 8, 8)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(3))
    assert (weights[1] == 1).all()
    torch.testing.assert_close(
        weights[0, 0, :, 2:] / weights[0, 0, :, :2].mean(), torch.full((8, 6), 0.2)
    )
    torch.testing.assert_close(weights[2], weights[0].flip(-1))


def test_masks_are_averaged_over_what_a_latent_stands_for(left):
    weights = area_weights([left], (2, 2), 0.0)[0, 0]  # half of its left places
    torch.testing.assert_close(weights, torch.tensor([[2.0, 0.0], [2.0, 0.0]]))
    half = area_weights([left], (1, 2), 0.5)[0, 0, 0]
    torch.testing.assert_close(half[1] / half[0], torch.tensor(0.5 / 0.75))


def test_without_background_errors_there_cost_nothing(base, pictures, left, tmp_path):
    for path in pictures.iterdir():
        Image.open(path).resize((32, 32)).save(tmp_path / path.name)
        Image.fromarray(left).save(tmp_path / f"{path.stem}-mask.png")
    subject = load_subject(tmp_path, 16)
    material = prepare(base, subject, ["<c>"], Objective(background=0.0))
    assert material.area.shape == (3, 1, 8, 8)
    wrong = torch.zeros_like(material.mean)
    wrong[..., 2:] = 1
    nothing = torch.zeros_like(wrong)
    assert denoising_loss(wrong, nothing, material.area).tolist() == [0.0] * 3
    wrong[..., :2] = 1
    torch.testing.assert_close(denoising_loss(wrong, nothing, material.area), torch.ones(3))


def test_a_mirrored_subject_is_told_of_from_its_own_side(left):
    images = torch.arange(12.0).view(1, 3, 2, 2)
    captions = ("<left> on the left, Right arm up, a LEFT-hand glove", None)
    subject = Subject(images, captions, ("a", "b"), "", (left, None), ("{} from the right", "{}"))
    other = mirrored(subject, "<left>")
    assert other.captions == ("<left> on the right, Left arm up, a RIGHT-hand glove", None)
    assert other.templates == ("{} from the left", "{}")
    assert other.images[0, 0].tolist() == [[1.0, 0.0], [3.0, 2.0]]
    assert (other.masks[0] == left[:, ::-1]).all() and other.masks[1] is None
    assert mirrored(other, "<left>").captions == captions


def test_half_of_the_draws_see_mirrored_pictures_encoded_themselves(base, pictures, left):
    subject = load_subject(pictures, 16)
    masks = (left[::2, ::2], None, None)
    subject = replace(subject, captions=("{} on the left", None, None), masks=masks)
    wanted = Objective(flip="yes", background=0.5)
    material = prepare(base, subject, ["<c>"], wanted)
    exact, _ = base.encode_images(subject.images.flip(-1))
    assert torch.equal(material.mean, torch.cat([base.encode_images(subject.images)[0], exact]))
    assert not torch.allclose(exact, material.mean[:3].flip(-1), atol=1e-3)
    assert torch.equal(material.area[3:], material.area[:3].flip(-1))
    assert material.prompts[0] != material.prompts[3] and material.prompts[1] == material.prompts[4]
    batches = [draw_batch(material, [0], 50, 1000, step, objective=wanted) for step in range(8)]
    own, other = (torch.tensor(material.prompts[i]) for i in (0, 3))
    counts = [sum(int((b.prompts == row).sum()) for b in batches) for row in (own, other)]
    assert all(45 < count < 90 for count in counts)  # a sixth of 400 each
    assert len({int((b.prompts == other).sum()) for b in batches}) > 1


EVERY = range(2)
"""Places of the ramps' pictures."""


@pytest.fixture
def ramps(tmp_path):
    """A wide picture and a high one, red by column and green by row, blue and masked in a spot."""
    for name, (width, height) in (("a", (200, 100)), ("b", (100, 160))):
        rows, columns = np.mgrid[:height, :width]
        spot = np.hypot(rows - height / 2, columns - width / 2) < 20
        channels = (columns * 255 / width, rows * 255 / height, 255 * spot)
        pixels = np.stack(channels, -1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        Image.fromarray(spot).save(tmp_path / f"{name}-mask.png")
    return tmp_path


def test_crops_are_squares_of_the_whole_picture_with_their_masks(ramps):
    subject = load_subject(ramps, 64)
    assert crops(subject, ramps, 1, EVERY) == []
    others = crops(subject, ramps, 6, EVERY)
    assert len(others) == 5 and len({float(o.images.sum()) for o in others}) == 5
    lefts = []
    for other in others:
        assert other.captions == subject.captions and other.names == subject.names
        for image, mask, (width, height) in zip(
            other.images, other.masks, ((200, 100), (100, 160)), strict=True
        ):
            red, green, blue = (image + 1) / 2
            sides = (red[32, -1] - red[32, 0]) * width, (green[-1, 32] - green[0, 32]) * height
            assert 78 <= sides[0] <= 101 and float(sides[0]) == pytest.approx(sides[1], abs=2)
            assert ((blue.numpy() > 0.5) == mask).mean() > 0.99
            lefts.append(float(red[32, 0]) * width)
    assert max(lefts) > 60  # beyond the centered square of the wide one
    again = crops(subject, ramps, 3, EVERY)
    assert all(torch.equal(a.images, o.images) for a, o in zip(again, others, strict=False))


def test_crops_are_drawn_beside_their_pictures_and_mirrored_too(base, ramps):
    subject = load_subject(ramps, 16)
    wanted = Objective(crops=3, flip="yes", background=0.5)
    others = crops(subject, ramps, 3, EVERY)
    material = prepare(base, subject, ["<c>"], wanted, others)
    assert material.mean.shape[0] == material.area.shape[0] == len(material.prompts) == 12
    exact, _ = base.encode_images(others[1].images.flip(-1))
    assert torch.equal(material.mean[-2:], exact)
    torch.testing.assert_close(material.area.mean((1, 2, 3)), torch.ones(12))


def test_pictures_keep_their_shapes_with_their_masks(base, ramps):
    """The tiny model's are 12x20, 16x16 and 20x12."""
    subject = load_subject(ramps, 16)
    wanted = Objective(buckets="yes", crops=2, flip="yes", background=0.5)
    material = prepare_views(base, subject, ramps, ["<c>"], wanted)
    (other,) = material.others
    assert {tuple(m.mean.shape) for m in (material, other)} == {(4, 4, 6, 10), (4, 4, 10, 6)}
    for each in (material, other):
        torch.testing.assert_close(each.area.mean((1, 2, 3)), torch.ones(4))
        assert each.area.shape[-2:] == each.mean.shape[-2:] and each.area.std() > 0
    known = shapes(16, base.multiple, base.longest)
    places = by_shape(subject, known)
    assert places == {(20, 12): [0], (12, 20): [1]}
    for (width, height), (place,) in places.items():
        some = shaped(subject, ramps, (width, height), [place])
        assert some.images.shape == (1, 3, height, width) and some.names == ("ab"[place] + ".png",)
        red, green, _ = (some.images[0] + 1) / 2
        spans = float(red[5, -1] - red[5, 0]), float(green[-1, 5] - green[0, 5])
        assert min(spans) > 0.75  # a square would show half of one's width, and 0.6 of one's height


def test_each_step_is_of_one_shape_as_often_as_it_has_pictures(base, tmp_path):
    for index, size in enumerate([(40, 24)] * 3 + [(24, 40)]):
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"<c> as number {index}", "utf-8")
    subject, wanted = load_subject(tmp_path, 16), Objective(buckets="yes")
    material = prepare_views(base, subject, tmp_path, ["<c>"], wanted)
    assert [len(m.mean) for m in (material, *material.others)] == [3, 1]
    high = 0
    for step in range(200):
        batch = draw_batch(material, [0, 7], 2, 1000, step)
        alone = draw_batch(material, [7], 2, 1000, step)
        assert torch.equal(batch.latents[2:], alone.latents)
        is_high = batch.latents.shape[-2:] == (10, 6)
        assert is_high == (set(batch.prompts.tolist()) == {3})  # with the right captions
        high += is_high
    assert 35 <= high <= 65


def test_a_crop_without_its_subject_counts_whole(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    corner = Image.new("L", (64, 64))
    corner.paste(255, (0, 0, 6, 6))
    corner.save(tmp_path / "a-mask.png")
    with pytest.warns(UserWarning, match="one picture alone"):
        subject = load_subject(tmp_path, 32)
    masks = [other.masks[0] for other in crops(subject, tmp_path, 9, range(1))]
    assert any(mask is None for mask in masks) and any(mask is not None for mask in masks)


def test_prompts_of_pictures_without_a_caption(base, pictures):
    subject = load_subject(pictures, 16)
    subject = replace(subject, captions=(None, "a cat", None), templates=("{} a", "the {}"))
    assert prompts_for(subject, "<c>") == [
        ["<c> a", "the <c>"],
        ["<c> a cat"],
        ["<c> a", "the <c>"],
    ]
    assert patterns_of(subject, "<c>") == ("{} a", "the {}", "{} a cat")


def test_masks_that_are_asked_for_must_be_there(pictures, left):
    subject = load_subject(pictures, 16)
    check(subject, Objective())
    told = r"E311\]: background is 0\.5, but no picture has a mask\. Hint: put <name>-mask\.png"
    with pytest.raises(DataError, match=told):
        check(subject, Objective(background=0.5))
