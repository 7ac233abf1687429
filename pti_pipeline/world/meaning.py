"""What a caption says of its picture, read back from its words."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from pti_pipeline.world import factors as f
from pti_pipeline.world.captions import BIG, COLUMN_WORDS, ROW_WORDS, SMALL
from pti_pipeline.world.factors import Factors


def _words(names: tuple[str, ...]) -> str:
    return "|".join(names)


COLOR = rf"(?:(?P<color>{_words(f.COLORS)}) )?"
NOUN = re.compile(
    rf"\b(?:(?P<size>small|big) )?{COLOR}(?P<species>{_words(f.SPECIES)}|character)\b"
)
HAT = re.compile(rf"\b{COLOR}(?P<hat>{_words(f.HATS[1:])})\b")
EMBLEM = re.compile(rf"\b{COLOR}(?P<emblem>{_words(f.EMBLEMS[:3])})\b")
EYES = re.compile(rf"\b(?P<eyes>{_words(f.EYES)}) eyes\b")
ARMS = re.compile(r"\barms (?P<arms>down|up)\b")
FACING = re.compile(r"\bfacing (?P<facing>left|right)\b")
SCENE = re.compile(rf"\b(?:in|on|at) (?:(?:the|a|outer) )?(?P<scene>{_words(f.SCENES)})\b")
SIZES = ("small", "middling", "big")

VALUES: dict[str, tuple[str, ...]] = {
    "species": f.SPECIES,
    "color": f.COLORS,
    "belly": f.COLORS,
    "hat": f.HATS,
    "hat_color": f.COLORS,
    "emblem": f.EMBLEMS,
    "eyes": f.EYES,
    "arms": ("down", "up"),
    "facing": ("left", "right"),
    "column": f.COLUMNS,
    "row": f.ROWS,
    "scene": f.SCENES,
    "size": SIZES,
}
"""Names of each factor's values, in the order of their indices."""


def meaning(text: str) -> dict[str, int]:
    """Factors that a caption names, and their values.

    Parameters
    ----------
    text : str
        A caption of the world's grammar; other words say nothing.

    Returns
    -------
    dict of str to int
        Indices into :data:`VALUES`.

    Examples
    --------
    >>> meaning("a photo of a red cat with a blue cap on the left")
    {'species': 1, 'color': 0, 'hat': 2, 'hat_color': 4, 'column': 0}
    """
    said: dict[str, str | None] = {}
    for pattern, color in ((NOUN, "color"), (HAT, "hat_color"), (EMBLEM, "belly")):
        if found := pattern.search(text):
            groups = found.groupdict()
            hue = groups.pop("color")
            said |= groups | {color: hue}
    for pattern in (EYES, ARMS, FACING, SCENE):
        if found := pattern.search(text):
            said |= found.groupdict()
    said["column"] = next((name for name, words in COLUMN_WORDS.items() if words in text), None)
    said["row"] = next((name for name, words in ROW_WORDS.items() if words in text), None)
    return {k: VALUES[k].index(v) for k, v in said.items() if v in VALUES[k]}


def values(factors: Factors) -> dict[str, NDArray[np.int64]]:
    """True values of every factor that a caption can name, each of shape (n,)."""
    named = {
        "column": f.column(factors.x),
        "row": f.row(factors.y),
        "size": np.digitize(factors.size, [SMALL, BIG]),
    }
    return named | {k: getattr(factors, k) for k in VALUES if k not in named}


def is_true(said: dict[str, int], of: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Whether what is said holds of each picture, given its :func:`values`; shape (n,)."""
    n = len(of["species"])
    return np.all([of[k] == v for k, v in said.items()] or [np.ones(n, bool)], axis=0)
