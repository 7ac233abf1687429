"""Reads one picture from a file that nobody vouches for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Of Pillow: it knows more, some of which start other programs."""
UNREAD = {".heic", ".heif", ".avif", ".jxl"}
"""Endings of pictures, as phones take them, that are not read here."""
BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
"""What such files say of themselves, whatever their name."""

SMALLEST = 16
"""Side of the smallest picture taken, in pixels."""
LARGEST = 50_000_000
"""Pixels of the largest picture taken: a file of 100 kB can claim a thousand million."""
LEAST_PART = 0.8
"""Smallest share of the largest part's sides that a crop leaves."""
Size = int | tuple[int, int]
"""Side of a square, or width and height, in pixels."""
Part = tuple[float, float, float]
"""A part of a picture, of the shape asked for: its size from the smallest to the largest, and how
far right and down it lies from where it is leftmost and uppermost; each from 0 to 1."""
PAGES = "MPO"
"""Pillow's name of a JPEG with previews behind it, which are no animation."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is trained on, and what its file is like.

    Attributes
    ----------
    pixels : ndarray, shape (H, W, 3), uint8
    shape : tuple of int
        Width and height of the whole picture, turned as it is shown.
    mask : ndarray or None, shape (H, W), bool
        Where it is not transparent; None if that sets nothing apart.
    animated : bool
        Whether the file holds more pictures, of which this is the first.
    digest : bytes
        SHA-256 over the whole picture's size and pixels.
    """

    pixels: NDArray[np.uint8]
    shape: tuple[int, int]
    mask: NDArray[np.bool_] | None
    animated: bool
    digest: bytes


def read_picture(path: Path, size: Size, part: Part | None = None) -> Picture:
    """Decode a picture, turned by its EXIF, laid on white, cut and resized to ``size``.

    What is cut out is the largest centered part of that shape, or ``part``.

    Raises
    ------
    Exception
        Of any kind, if it can't be: see :func:`reason`.
    """
    with opened(path) as file:
        animated = file.format != PAGES and bool(getattr(file, "is_animated", False))
        picture = _eight_bits(ImageOps.exif_transpose(file))
    mask = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        seen = fit_mask(picture.getchannel("A"), size, part)
        mask = seen if seen.any() and not seen.all() else None
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    flat = picture.convert("RGB")
    digest = sha256(f"{flat.size}".encode() + flat.tobytes()).digest()
    return Picture(fit(flat, size, part), flat.size, mask, animated, digest)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture and check what its header says, before anything is decoded."""
    if not path.is_file():  # before it is opened: a pipe would wait for ever
        raise ValueError("no file: a folder, or a link to nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of oddities that it can live with
        with Image.open(path, formats=FORMATS) as file:
            width, height = file.size
            if min(file.size) < SMALLEST:
                raise ValueError(f"{width}x{height} is below {SMALLEST} pixels")
            if width * height > LARGEST:
                raise ValueError(f"{width}x{height} is above {LARGEST / 1e6:.0f} megapixels")
            if file.format == "PNG":  # its checksums, which decoding passes over
                with Image.open(path, formats=["PNG"]) as same:
                    same.verify()
            yield file


def reason(path: Path, error: Exception) -> str:
    """Say in a few words why a picture can't be read."""
    if isinstance(error, Image.DecompressionBombError):
        return f"above {LARGEST / 1e6:.0f} megapixels"
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            head = file.read(12)
        if not head:
            return "empty"
        if head[4:8] == b"ftyp" and head[8:12] in BRANDS:
            return "HEIC or AVIF: save it as JPEG or PNG"
        return "no picture of a known kind"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def fit(picture: Image.Image, size: Size, part: Part | None = None) -> NDArray[np.uint8]:
    """Cut a picture to its largest centered part, or ``part``, and resize it: (H, W, 3), uint8."""
    return np.asarray(_cut(picture, size, part, Image.Resampling.LANCZOS))


def fit_mask(shape: Image.Image, size: Size, part: Part | None = None) -> NDArray[np.bool_]:
    """Cut and resize a mask, white on the subject, as :func:`fit` does its picture."""
    mask: NDArray[np.bool_] = np.asarray(_cut(shape, size, part, Image.Resampling.BOX)) > 127
    return mask


def _cut(picture: Image.Image, size: Size, part: Part | None, how: Image.Resampling) -> Image.Image:
    shape = (size, size) if isinstance(size, int) else size
    if part is None:
        return ImageOps.fit(picture, shape, how)
    most = min(whole / wanted for whole, wanted in zip(picture.size, shape, strict=True))
    scale = most * (LEAST_PART + (1 - LEAST_PART) * part[0])
    width, height = (scale * side for side in shape)
    left, top = part[1] * (picture.width - width), part[2] * (picture.height - height)
    return picture.resize(shape, how, (left, top, left + width, top + height))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale a picture of 16 or 32 bits a pixel, where ``convert`` would clip it."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    depth = np.asarray(picture, np.float64)
    if not np.isfinite(depth).all():
        raise ValueError("pixels that are no numbers")
    scaled = depth.clip(0) / _white(picture.mode, float(depth.max())) * 255
    return Image.fromarray(scaled.round().astype(np.uint8))


def _white(mode: str, largest: float) -> float:
    """Value of white: what 16 bits can say, else the least usual one that no pixel is above."""
    if mode.startswith("I;16"):
        return 65535.0
    usual = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    return next((white for white in usual if largest <= white), largest)
