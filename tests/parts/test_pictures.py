"""Pictures that are broken, huge or odd, as a folder of them is read."""

import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from faults.pictures import bad_files, bad_places, claimed, encoded, gradient
from pti_pipeline.data import load_subject
from pti_pipeline.errors import DataError
from pti_pipeline.pictures import read_picture


@pytest.fixture(scope="module")
def bad():
    return bad_files()


def told(folder, size=16):
    """Warnings of a folder."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_subject(folder, size)
    return [str(each.message) for each in caught]


def refusal(folder):
    with pytest.raises(DataError) as caught:
        load_subject(folder, 16)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    return caught.value


def test_every_bad_file_of_a_folder_is_told_at_once_with_its_reason(tmp_path, bad):
    (tmp_path / "good.png").write_bytes(encoded("PNG"))
    for name, (data, _) in bad.items():
        (tmp_path / name).write_bytes(data)
    whys = {name: why for name, (_, why) in bad.items()} | bad_places(tmp_path)
    error = refusal(tmp_path)
    assert error.code == "E302" and f"{len(whys)} of {len(whys) + 1} pictures" in error.what
    for name, why in whys.items():
        assert f"{name} (" in error.what and why in error.what.split(f"{name} (")[1].split(";")[0]
    assert "good.png" not in error.what and str(tmp_path) not in error.what


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path, bad):
    (tmp_path / "bomb.png").write_bytes(bad["bomb.png"][0])
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from pti_pipeline.pictures import read_picture\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "try: read_picture(Path(sys.argv[1]), 48)\n"
        "except Exception: print(used() - before)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "bomb.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # kB; decoded it would be 900 MB


def test_files_and_folders_that_may_not_be_read(somebody):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        path.write_bytes(encoded("PNG"))
        path.chmod(0)
        assert "a.png (Permission denied)" in refusal(Path(folder)).what
        Path(folder).chmod(0)
        error = refusal(Path(folder))
        Path(folder).chmod(0o700)
    assert error.code == "E301" and "Permission denied" in error.what


def test_folders_that_are_none(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / ("x" * 300)):
        assert refusal(folder).code == "E301"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_all_formats_read_the_same_picture(tmp_path, kind):
    path = tmp_path / f"a.{kind.lower()}"
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    path.write_bytes(encoded(kind, **options))
    off = read_picture(path, 48).pixels.astype(int) - np.asarray(gradient())
    assert np.abs(off).mean() < (5 if kind in ("JPEG", "GIF") else 0.01)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_taken_and_that_is_told(tmp_path, kind):
    first, second = (Image.new("RGB", (32, 32), color) for color in ("red", "blue"))
    data = encoded(kind, first, save_all=True, append_images=[second], lossless=True)
    (tmp_path / f"a.{kind.lower()}").write_bytes(data)
    assert f"only the first picture is used of an animation: a.{kind.lower()}" in told(tmp_path)
    assert (load_subject(tmp_path, 16).images[0, 0] > 0.9).all()


def test_cmyk_palettes_and_gray_keep_their_colors(tmp_path):
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    for mode, kind in (("CMYK", "TIFF"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")):
        path = tmp_path / f"{mode}.{kind.lower()}"
        path.write_bytes(encoded(kind, red.convert(mode)))
        assert np.abs(read_picture(path, 16).pixels - np.array([255.0, 0, 0])).max() < 8, path.name
    path.write_bytes(encoded("PNG", red.convert("L")))
    assert (read_picture(path, 16).pixels == 76).all()


@pytest.mark.parametrize(
    ("form", "kind", "value", "gray"),
    [
        ("PNG", np.uint16, 200, 1),
        ("PNG", np.uint16, 32768, 128),
        ("PNG", np.uint16, 65535, 255),
        ("TIFF", np.uint16, 200, 1),
        ("TIFF", ">u2", 32768, 128),
        ("TIFF", np.int32, 200, 200),
        ("TIFF", np.int32, 32768, 128),
        ("TIFF", np.int32, 10**6, 255),
        ("TIFF", np.float32, -1.0, 0),
        ("TIFF", np.float32, 0.5, 128),
        ("TIFF", np.float32, 1.0, 255),
        ("TIFF", np.float32, 200.0, 200),
        ("TIFF", np.float32, 32768.0, 128),
        ("TIFF", np.float32, 1e6, 255),
    ],
)
def test_deep_pictures_are_scaled(tmp_path, form, kind, value, gray):
    path = tmp_path / "a"
    path.write_bytes(encoded(form, Image.fromarray(np.full((20, 20), value, kind))))
    assert (read_picture(path, 16).pixels == gray).all()


def test_a_png_with_clear_pixels_is_white_there_whatever_they_hide(tmp_path):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16, :, 3] = 255
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG", Image.fromarray(pixels)))
    picture = read_picture(path, 16)
    assert (picture.pixels[:7] < 40).all() and (picture.pixels[9:] > 215).all()
    assert picture.mask[:8].all() and not picture.mask[8:].any()


def test_what_is_odd_is_told_in_one_line_each(tmp_path):
    names = {"A.png": 0, "a.png": 1, "b.png": 2, "c.png": 2}
    for name, seed in names.items():
        (tmp_path / name).write_bytes(encoded("PNG", gradient(32, seed)))
    (tmp_path / "wide.png").write_bytes(claimed(4000, 20))
    assert told(tmp_path) == [
        "only the middle square is used, a small part of: wide.png",
        "the same picture: b.png, c.png",
        "one file on some systems, several here: A.png, a.png",
    ]
    assert told(tmp_path, 48)[0] == (
        "below the base model's 48x48 pixels, so blurred: A.png, a.png, b.png, c.png, wide.png"
    )


def test_one_picture_is_taken_with_a_warning(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert len(told(tmp_path)) == 1 and told(tmp_path)[0].startswith("one picture alone")


def test_names_are_composed_and_hold_no_foreign_bytes(tmp_path):
    (tmp_path / unicodedata.normalize("NFD", "é.png")).write_bytes(encoded("PNG"))
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb") as file:
        file.write(encoded("PNG", gradient(seed=1)))
    row = '{"file_name": "\u00e9.png", "text": "on grass"}'
    (tmp_path / "metadata.jsonl").write_text(row, "utf-8")
    subject = load_subject(tmp_path, 16)
    assert subject.names == ("\u00e9.png", "\ufffd.png")
    assert subject.captions == ("on grass", None)


def test_captions_of_pictures_that_are_not_there_are_told(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "x"}')
    assert "metadata.jsonl tells of pictures not there: b.png" in told(tmp_path)


def test_all_masks_that_can_not_be_used_are_told_at_once(tmp_path, bad):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(encoded("PNG"))
    (tmp_path / "a-mask.png").write_bytes(bad["bomb.png"][0])
    (tmp_path / "b-mask.png").symlink_to(tmp_path / "nothing")
    error = refusal(tmp_path)
    assert error.code == "E310" and "a-mask.png (above 50" in error.what
    assert "b-mask.png (no file" in error.what
