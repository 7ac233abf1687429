"""Files that call themselves pictures and are none that can be trained on."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def gradient(side: int = 48, seed: int = 0) -> Image.Image:
    """Draw a picture that any format keeps: red from left to right, green downwards."""
    ramp = np.linspace(0, 255, side)
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = ramp, ramp[:, None], 40 * seed
    return Image.fromarray(pixels)


def encoded(kind: str, picture: Image.Image | None = None, **options: object) -> bytes:
    """Return a picture's file in a format of Pillow's."""
    out = io.BytesIO()
    (picture or gradient()).save(out, kind, **options)
    return out.getvalue()


def claimed(width: int, height: int) -> bytes:
    """Return a whole PNG, black, of 1 bit a pixel: small, however large the picture is."""
    press = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    parts = [press.compress(row * min(1000, height - done)) for done in range(0, height, 1000)]
    data = b"".join(parts) + press.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(text)) + name + text + struct.pack(">I", zlib.crc32(name + text))
        for name, text in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def flipped(data: bytes, place: int) -> bytes:
    """Return the same with one bit turned."""
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Return files by name, each with words of the reason for which it must be refused."""
    png, jpeg = encoded("PNG"), encoded("JPEG")
    nan = Image.fromarray(np.full((32, 32), np.nan, np.float32))
    heic = struct.pack(">I4s4s", 24, b"ftyp", b"heic") + bytes(400)
    return {
        "bomb.png": (claimed(30000, 30000), "above 50 megapixels"),
        "cut.bmp": (encoded("BMP")[:999], "truncated"),
        "cut.gif": (encoded("GIF")[:600], ""),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "runcated"),
        "cut.png": (png[: len(png) // 2], ""),
        "cut.tiff": (encoded("TIFF")[:500], ""),
        "cut.webp": (encoded("WEBP")[:60], ""),
        "empty.png": (b"", "empty"),
        "flipped.png": (flipped(png, len(png) // 2), ""),
        "head.png": (flipped(png, 17), ""),
        "huge.png": (claimed(8000, 8000), "8000x8000 is above 50 megapixels"),
        "nan.tiff": (encoded("TIFF", nan), "no numbers"),
        "page.jpg": (b"<html><body>404</body></html>", "no picture of a known kind"),
        "phone.heic": (heic, "HEIC"),
        "phone.jpg": (heic, "HEIC"),
        "pickle.png": (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.", "no picture"),
        "point.png": (encoded("PNG", gradient(1)), "1x1 is below 16 pixels"),
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "no picture"),
        "text.png": (b"not a picture", "no picture of a known kind"),
        "thin.png": (claimed(4000, 4), "4000x4 is below 16 pixels"),
        "tiny.png": (encoded("PNG", gradient(8)), "8x8 is below 16 pixels"),
        "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        "zip.png": (b"PK\x03\x04" + bytes(200), "no picture"),
    }


def bad_places(folder: Path) -> dict[str, str]:
    """Put things of a picture's name into ``folder`` that are no files; return why not."""
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.png")
    return dict.fromkeys(("folder.png", "loop.png", "gone.png", "pipe.png"), "no file")
