"""Captions: true of their picture, and silent about most of it.

Each attribute is said or dropped at random. Where a caption names no position, any position fits
it, so a model trained on these captions must draw random ones.
"""

from __future__ import annotations

import numpy as np

from pti_pipeline.world.factors import (
    COLORS,
    COLUMNS,
    EMBLEMS,
    EYES,
    HATS,
    ROWS,
    SCENES,
    SIZE_RANGE,
    SPECIES,
    Factors,
    column,
    row,
)

SAID = {
    "species": 0.95,
    "color": 0.75,
    "belly": 0.25,
    "hat": 0.9,
    "hat_color": 0.6,
    "emblem": 0.4,
    "eyes": 0.15,
    "size": 0.1,
    "arms": 0.6,
    "facing": 0.2,
    "position": 0.65,
    "scene": 0.65,
}
"""How often a caption says an attribute (where there is something to say)."""

OPENINGS = ("a photo of", "a picture of", "a drawing of", "an image of", "")
SCENE_WORDS = {
    "forest": ("in the forest", "in a forest"),
    "desert": ("in the desert", "in a desert"),
    "beach": ("on the beach", "at the beach"),
    "snow": ("in the snow", "in snow"),
    "city": ("in the city", "in a city"),
    "space": ("in space", "in outer space"),
    "room": ("in the room", "in a room"),
}
COLUMN_WORDS = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
ROW_WORDS = {"top": "at the top", "center": "at mid height", "bottom": "at the bottom"}
SMALL, BIG = np.linspace(*SIZE_RANGE, 4)[1:-1]

WORDS = (
    *SPECIES,
    *COLORS,
    *HATS[1:],
    *("character", "belly", "dot", "stripes", "eyes", "small", "big", "arms", "up", "down"),
    *("facing", *COLUMNS, "top", "bottom", "mid", "height", "with", "and", "outer"),
    *(*SCENES, "a", "an", "the", "of", "in", "on", "at"),
    *("photo", "picture", "drawing", "image", "rendering", "close", "up", "no", ","),
)
"""Every word that is one token of the world's tokenizer."""


def caption(factors: Factors, i: int, rng: np.random.Generator) -> str:
    """Say something true of picture ``i``, drawing what is said and in what order."""
    said = {name: rng.random() < share for name, share in SAID.items()}
    phrases = _phrases(factors, i, said, rng)
    rng.shuffle(phrases)
    opening = OPENINGS[rng.integers(len(OPENINGS))]
    comma = ", " if rng.random() < 0.3 else " "
    return comma.join([f"{opening} {_noun(factors, i, said)}".strip(), *phrases])


def _noun(factors: Factors, i: int, said: dict[str, bool]) -> str:
    words = ["a"]
    if said["size"] and not SMALL <= factors.size[i] <= BIG:
        words.append("small" if factors.size[i] < SMALL else "big")
    if said["color"]:
        words.append(COLORS[factors.color[i]])
    words.append(SPECIES[factors.species[i]] if said["species"] else "character")
    return " ".join(words)


def _phrases(
    factors: Factors, i: int, said: dict[str, bool], rng: np.random.Generator
) -> list[str]:
    phrases = []
    worn = _worn(factors, i, said)
    if worn:
        rng.shuffle(worn)
        phrases.append("with " + " and ".join(worn))
    if said["arms"]:
        phrases.append("arms up" if factors.arms[i] else "arms down")
    if said["facing"]:
        phrases.append("facing " + ("right" if factors.facing[i] else "left"))
    if said["position"]:
        phrases.append(_position(factors, i, rng))
    if said["scene"]:
        choices = SCENE_WORDS[SCENES[factors.scene[i]]]
        phrases.append(choices[rng.integers(len(choices))])
    return phrases


def _worn(factors: Factors, i: int, said: dict[str, bool]) -> list[str]:
    worn = []
    if said["hat"] and factors.hat[i] > 0:
        color = COLORS[factors.hat_color[i]] + " " if said["hat_color"] else ""
        worn.append(f"a {color}{HATS[factors.hat[i]]}")
    emblem = EMBLEMS[factors.emblem[i]]
    if said["emblem"] and emblem in ("belly", "dot", "stripes"):
        color = COLORS[factors.belly[i]] + " " if said["belly"] or emblem == "belly" else ""
        worn.append(f"{color}stripes" if emblem == "stripes" else f"a {color}{emblem}")
    if said["eyes"]:
        worn.append(f"{EYES[factors.eyes[i]]} eyes")
    return worn


def _position(factors: Factors, i: int, rng: np.random.Generator) -> str:
    """Say the column (half of the time), the row, or both."""
    across, down = COLUMNS[column(factors.x[i : i + 1])[0]], ROWS[row(factors.y[i : i + 1])[0]]
    kind = rng.random()
    if kind < 0.5:
        return COLUMN_WORDS[across]
    return ROW_WORDS[down] if kind < 0.75 else f"{ROW_WORDS[down]} {across}"
