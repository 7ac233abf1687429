"""Pictures are people's: where and with what they were taken leaves with nothing that is logged."""

import base64
import re
import struct

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, PngImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from pti_pipeline.cli import main
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.tracking.runs import open_run

SECRET = "Secret Camera 4711"
SECONDS = (123457, 1009)
MARKS = {
    "EXIF of JPEG and WebP": b"Exif\0\0",
    "EXIF of PNG": b"eXIf",
    "EXIF of WebP": b"EXIF",
    "XMP": b"ns.adobe.com/xap",
    "camera": SECRET.encode(),
    "camera, wide": SECRET.encode("utf-16-le"),
    "place": struct.pack("<II", *SECONDS),
    "place, other end": struct.pack(">II", *SECONDS),
}


def told(data):
    """Which marks are in a file's bytes, or in the pictures that a page holds."""
    parts = [data, *map(base64.b64decode, re.findall(rb"base64,([A-Za-z0-9+/=]+)", data))]
    return sorted({name for name, mark in MARKS.items() if any(mark in part for part in parts)})


@pytest.fixture
def photos(tmp_path):
    """A JPEG, a PNG and a WebP with all that a phone says of them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[Base.Make] = SECRET
    place = exif.get_ifd(IFD.GPSInfo)
    place[GPS.GPSLatitudeRef], place[GPS.GPSLatitude] = "N", (48.0, 51.0, SECONDS[0] / SECONDS[1])
    xmp = f'<x xmlns="http://ns.adobe.com/xap/1.0/">{SECRET}</x>'.encode()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    picture.save(folder / "a.jpg", exif=exif, xmp=xmp, comment=SECRET)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET)
    picture.save(folder / "b.png", exif=exif, pnginfo=text)
    picture.save(folder / "c.webp", exif=exif, xmp=xmp)
    return folder


def pti(*words):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output


def test_nothing_that_is_logged_tells_where_a_picture_was_taken(store, photos, tmp_path):
    there = [told(path.read_bytes()) for path in sorted(photos.iterdir())]
    assert [len(marks) for marks in there] == [4, 3, 4]  # else nothing would be shown below
    with open_run("study", {"token": "<x>"}, {"pti.step": "main"}) as study:
        pass
    pti(
        "invert", f"--images={photos}", "--token=<x>", "--steps=2", "--sample-every=1",
        "--probes=0", "--device=cpu", f"--study={study.id}",
    )  # fmt: skip
    (run,) = find_runs(step="invert")
    pti("register", f"--run={run.id}", "--name=x", "--force=yes")
    pti("export", "--model=models:/x@champion", "--form=diffusers,embedding", "--output=exported")
    pti("report", f"--run={study.id}")
    files = [p for p in tmp_path.rglob("*") if p.is_file() and photos not in p.parents]
    names = {path.name for path in files}
    assert {"pictures.png", "samples.png", "README.md", "index.html", "mlflow.db"} <= names
    assert {path.name: marks for path in files if (marks := told(path.read_bytes()))} == {}


def test_the_marks_are_found_inside_a_page():
    picture = base64.b64encode(b"RIFF EXIF " + SECRET.encode())
    assert told(b'<img src="data:image/webp;base64,' + picture + b'">') == [
        "EXIF of WebP",
        "camera",
    ]
