"""Shapes for pictures that are no squares: aspect-ratio buckets (NovelAI 2022)."""

from __future__ import annotations

import math

WIDEST = 2.0
"""Largest aspect ratio; what is wider, or higher, is cut."""
STEPS = 8
"""Into so many parts a square's side is divided, at most, to tell shapes apart."""


def shapes(side: int, multiple: int, longest: int) -> list[tuple[int, int]]:
    """Widths and heights, in pixels, of no more area than a square.

    Parameters
    ----------
    side : int
        Of the square, which is one of the shapes.
    multiple : int
        What sides must be multiples of.
    longest : int
        Longest side.

    Examples
    --------
    >>> shapes(512, 64, 1024)
    [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)]
    >>> shapes(48, 16, 48)
    [(48, 48)]
    """
    step = math.ceil(side / STEPS / multiple) * multiple
    found = {(side, side)}
    for long in range(math.ceil(side / step) * step, longest + 1, step):
        short = side * side // long // step * step
        if 0 < long <= WIDEST * short:
            found |= {(long, short), (short, long)}
    return sorted(found)


def nearest(picture: tuple[int, int], known: list[tuple[int, int]]) -> tuple[int, int]:
    """Shape whose aspect ratio is nearest to that of a picture's width and height.

    Examples
    --------
    >>> nearest((3024, 4032), shapes(512, 64, 1024))
    (448, 576)
    """

    def stretch(shape: tuple[int, int]) -> float:
        return abs(math.log(shape[0] / shape[1]) - math.log(picture[0] / picture[1]))

    return min(known, key=stretch)
