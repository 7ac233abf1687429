"""What of a folder is a picture, and what is told of those that can't be used."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faults.pictures import encoded
from pti_pipeline.errors import DataError
from pti_pipeline.folder import find_pictures, read_masks, read_pictures
from pti_pipeline.pictures import SUFFIXES, Picture


def refusal(call, *words):
    with pytest.raises(DataError) as caught:
        call(*words)
    return str(caught.value)


def test_only_pictures_are_found_and_hidden_ones_are_none(tmp_path):
    names = ["b.PNG", "a.jpeg", "c.webp", "d.heic", "x"]
    left = [".a.png", "._b.PNG", "notes.txt", "png", "b-mask.png", "x-mask.PNG"]
    for name in (*names, *left):
        (tmp_path / name).write_bytes(b"")
    found = ["a.jpeg", "b.PNG", "c.webp", "d.heic", "x-mask.PNG"]
    assert [path.name for path in find_pictures(tmp_path)] == found


def test_folders_without_pictures_are_told_what_to_do(tmp_path):
    told = refusal(find_pictures, tmp_path)
    assert told.startswith(f"error[E301]: no picture in '{tmp_path}'. Hint: put 4 to 20 pictures")
    assert ", ".join(sorted(SUFFIXES)) in told
    hint = "Hint: give a folder with 4 to 20"
    told = refusal(find_pictures, tmp_path / "none")
    assert told.startswith(f"error[E301]: no folder '{tmp_path}/none'. {hint}")
    (tmp_path / "file").write_text("")
    told = refusal(find_pictures, tmp_path / "file")
    assert told.startswith(
        f"error[E301]: can't open the folder '{tmp_path}/file' (Not a directory). {hint}"
    )
    assert "embedded null byte" in refusal(find_pictures, Path("a\0b"))


def test_pictures_that_can_not_be_read_are_told_in_one_list(tmp_path):
    (tmp_path / "good.png").write_bytes(encoded("PNG"))
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(b"")
    told = refusal(read_pictures, find_pictures(tmp_path), 16)
    line = r"error\[E302\]: can't read 2 of 3 pictures: a\.png \([^)]+\); b\.png \([^)]+\)\. Hint: "
    assert re.match(line + "replace or remove them", told)


def test_masks_that_can_not_be_used_are_told_in_one_list(tmp_path):
    picture = Picture(np.zeros((16, 16, 3), np.uint8), (32, 32), None, False, b"")
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    Image.new("L", (32, 24), 255).save(tmp_path / "a-mask.png")
    Image.new("L", (32, 32)).save(tmp_path / "b-mask.png")
    told = refusal(read_masks, paths, [picture] * 3, 16)
    assert told.startswith(
        "error[E310]: can't use 2 masks: a-mask.png (32x24 where its picture is 32x32); "
        "b-mask.png (it shows no subject). Hint: make them as large as"
    )


def test_masks_may_have_colors(tmp_path):
    picture = Picture(np.zeros((16, 16, 3), np.uint8), (32, 32), None, False, b"")
    drawn = Image.new("RGB", (32, 32))
    drawn.paste((255, 255, 255), (0, 0, 16, 32))
    drawn.save(tmp_path / "a-mask.png")
    (mask,) = read_masks([tmp_path / "a.png"], [picture], 16)
    assert mask.shape == (16, 16) and mask[:, :8].all() and not mask[:, 8:].any()
