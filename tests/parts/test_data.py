import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from pti_pipeline import data
from pti_pipeline.data import TEMPLATES, load_subject, prompts_for
from pti_pipeline.errors import DataError


def save(folder, name, pixels, **options):
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name, **options)


@pytest.fixture
def halves():
    """Red on the left, blue on the right; 32 x 32."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16, 0] = 255
    pixels[:, 16:, 2] = 255
    return pixels


def test_pixels_are_scaled_to_minus_one_and_one(tmp_path, halves):
    save(tmp_path, "a.png", halves)
    images = load_subject(tmp_path, 16).images
    assert images.shape == (1, 3, 16, 16) and images.dtype == torch.float32
    assert images[0, :, 8, 2].tolist() == [1.0, -1.0, -1.0]
    assert images[0, :, 8, 13].tolist() == [-1.0, -1.0, 1.0]


def test_exif_rotation_is_applied(tmp_path, halves):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise: what is left comes to the top
    save(tmp_path, "a.png", halves, exif=exif)
    images = load_subject(tmp_path, 16).images
    assert images[0, 0, 2, 8] > 0.9 and images[0, 2, 13, 8] > 0.9


def test_transparency_is_laid_on_white(tmp_path):
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[..., 0] = 255
    save(tmp_path, "a.png", pixels)
    assert (load_subject(tmp_path, 16).images == 1).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((20, 20), 32768, np.uint16)).save(tmp_path / "a.png")
    assert load_subject(tmp_path, 16).images.abs().max() < 0.02


def test_wide_pictures_are_cut_to_their_middle(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    save(tmp_path, "a.png", pixels)
    assert load_subject(tmp_path, 20).images.min() > 0.9


def test_captions_from_sidecars_then_metadata_then_templates(tmp_path, halves):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path, name, halves)
    (tmp_path / "a.txt").write_text("<c> in the snow\n")
    lines = [{"file_name": "a.png", "text": "no"}, {"file_name": "b.png", "text": "in a room"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    subject = load_subject(tmp_path, 16)
    assert subject.captions == ("<c> in the snow", "in a room", None)
    prompts = prompts_for(subject, "<c>")
    assert prompts[:2] == [["<c> in the snow"], ["<c> in a room"]]
    assert prompts[2] == [t.format("<c>") for t in TEMPLATES]


def test_the_fingerprint_follows_pixels_and_captions(tmp_path, halves):
    save(tmp_path, "a.png", halves)
    first = load_subject(tmp_path, 16).fingerprint
    assert load_subject(tmp_path, 16).fingerprint == first
    (tmp_path / "a.txt").write_text("<c>")
    second = load_subject(tmp_path, 16).fingerprint
    halves[0, 0] = 9
    save(tmp_path, "a.png", halves)
    assert len({first, second, load_subject(tmp_path, 16).fingerprint}) == 3


def test_missing_and_empty_folders(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError) as caught:
            load_subject(folder, 16)
        assert caught.value.code == "E301" and caught.value.exit_code == 3


def test_every_unreadable_picture_is_named_in_one_line(tmp_path, halves):
    save(tmp_path, "good.png", halves)
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.webp").write_bytes(b"")
    save(tmp_path, "small.png", halves[:8, :8])
    with pytest.raises(DataError) as caught:
        load_subject(tmp_path, 16)
    text = str(caught.value)
    assert all(n in text for n in ("cut.png", "text.jpg", "empty.webp", "small.png"))
    assert "good.png" not in text and "\n" not in text and "4 of 5" in text


def test_unreadable_metadata(tmp_path, halves):
    save(tmp_path, "a.png", halves)
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(DataError, match="E303"):
        load_subject(tmp_path, 16)


def test_masks_come_from_the_file_beside_then_from_transparency(tmp_path, halves):
    left = np.zeros((32, 32), np.uint8)
    left[:, :16] = 255
    for name in ("a.png", "c.png"):
        save(tmp_path, name, halves)
    save(tmp_path, "a-mask.png", left)
    see_through = np.dstack([halves, 255 - left])
    save(tmp_path, "b.png", see_through)
    save(tmp_path, "b-mask.png", left)
    save(tmp_path, "d.png", see_through)
    save(tmp_path, "e.png", np.dstack([halves, np.full((32, 32), 255, np.uint8)]))
    subject = load_subject(tmp_path, 16)
    assert subject.names == ("a.png", "b.png", "c.png", "d.png", "e.png")
    a, b, c, d, e = subject.masks
    assert a[:, :8].all() and not a[:, 8:].any()
    assert (a == b).all() and (d == ~a).all() and c is e is None


def test_masks_are_cut_and_turned_as_their_pictures(tmp_path):
    shape = np.zeros((20, 60), np.uint8)
    shape[:, 40:] = shape[:, 20:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path, "a.png", np.dstack([shape] * 3), exif=exif)
    save(tmp_path, "a-mask.png", np.rot90(shape, -1))
    subject = load_subject(tmp_path, 20)
    assert ((subject.images[0, 0] > 0).numpy() == subject.masks[0]).all()
    assert subject.masks[0][:10].all() and not subject.masks[0][10:].any()


def test_masks_do_not_change_what_is_trained(tmp_path, halves):
    save(tmp_path, "a.png", halves)
    before = load_subject(tmp_path, 16)
    save(tmp_path, "a-mask.png", np.full((32, 32), 255, np.uint8))
    assert load_subject(tmp_path, 16).fingerprint == before.fingerprint


def test_masks_that_can_not_be_used(tmp_path, halves):
    save(tmp_path, "a.png", halves)
    for pixels, word in ((np.zeros((32, 32)), "no subject"), (np.full((8, 32), 255), "32x8")):
        save(tmp_path, "a-mask.png", pixels.astype(np.uint8))
        with pytest.raises(DataError, match=f"E310.*{word}"):
            load_subject(tmp_path, 16)
    (tmp_path / "a-mask.png").write_text("no picture")
    with pytest.raises(DataError, match=r"E310.*a-mask\.png"):
        load_subject(tmp_path, 16)


def test_what_is_odd_is_told_once_not_by_every_process(tmp_path, halves, monkeypatch):
    save(tmp_path, "a.png", halves)
    with pytest.warns(UserWarning, match="one picture alone"):
        load_subject(tmp_path, 16)
    monkeypatch.setattr(data, "parent_process", lambda: object())  # as in a sweep's worker
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_subject(tmp_path, 16)
