"""Held-out characters, their training pictures, and twins of these.

A new character takes three lines::

    pip = Character("pip", "bear", "green", "white", "cap", "red", "half", "blue")
    pictures = render(views(pip, 6))
    elsewhere = render(twins(views(pip, 6), 0, "position"))
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pti_pipeline.randomness import numpy_generator
from pti_pipeline.world.factors import (
    COLORS,
    EMBLEMS,
    EYES,
    HATS,
    SCENES,
    SPECIES,
    X_RANGE,
    Y_RANGE,
    Factors,
    sample_factors,
    shade,
)


@dataclass(frozen=True)
class Character:
    """An identity, by the names of :mod:`pti_pipeline.world.factors`."""

    name: str
    species: str
    color: str
    belly: str
    hat: str
    hat_color: str
    emblem: str
    eyes: str


MOCHI = Character("mochi", "rabbit", "purple", "white", "crown", "yellow", "cross", "blue")
"""The demo's character: no training picture has a purple rabbit or a cross."""

CHARACTERS = (
    MOCHI,
    Character("bolt", "robot", "yellow", "black", "none", "black", "half", "red"),
    Character("nori", "cat", "blue", "orange", "cap", "white", "cross", "black"),
    Character("umber", "bear", "orange", "white", "hat", "blue", "half", "black"),
    Character("wisp", "ghost", "green", "pink", "crown", "red", "cross", "red"),
    Character("zoot", "alien", "pink", "green", "none", "black", "half", "blue"),
    Character("pepper", "cat", "black", "red", "hat", "purple", "half", "red"),
    Character("sorbet", "robot", "red", "yellow", "cap", "green", "cross", "blue"),
)
"""Each has an emblem that no caption can name."""

FOLDERS = (2, 4, 6, 8, 16)
"""Sizes of the training folders."""

CONTROLS = ("position", "scene")
"""What a control folder holds constant."""

TWINS = {
    "position": ("x", "y"),
    "pose": ("facing", "arms", "size"),
    "scene": ("scene", "scene_seed"),
}
"""Factors that each kind of twin draws anew."""

PLASTIC = np.array([0.7548776662, 0.5698402910])

EVEN_REACH = 0.53
"""Share of the range of positions at which moving a character changes the pixels as much as
replacing it does (measured by ``pti world check``)."""


def dress(factors: Factors, who: Character) -> Factors:
    """Put ``who`` into every picture, in the same shades; pose and scene stay."""
    n = len(factors)
    rng = numpy_generator(0, f"character/{who.name}", 0)

    def always(names: tuple[str, ...], name: str) -> np.ndarray:
        return np.full(n, names.index(name))

    colors = {name: always(COLORS, getattr(who, name)) for name in ("color", "belly", "hat_color")}
    rgb, belly_rgb, hat_rgb = (shade(c[:1], rng).repeat(n, 0) for c in colors.values())
    return replace(
        factors,
        species=always(SPECIES, who.species),
        hat=always(HATS, who.hat),
        emblem=always(EMBLEMS, who.emblem),
        eyes=always(EYES, who.eyes),
        rgb=rgb,
        belly_rgb=belly_rgb,
        hat_rgb=hat_rgb,
        **colors,
    )


def views(who: Character, n: int, seed: int = 0, constant: str = "", reach: float = 1.0) -> Factors:
    """Draw the factors of a training folder: ``n`` pictures in many places, poses and scenes.

    No scene comes again before all have been shown, and places fill their range evenly (a
    Kronecker sequence of the plastic number, from a random start), as someone who takes pictures
    for this purpose would see to.

    Parameters
    ----------
    who : Character
    n : int
    seed : int
        Pictures of a smaller folder of the same seed are the first of a larger one.
    constant : str
        One of :data:`CONTROLS`, held as in the first picture; none by default.
    reach : float
        Share of the range of positions that is used, around its middle; :data:`EVEN_REACH` makes
        a move change as many pixels as another character would.
    """
    most = max(n, FOLDERS[-1])
    rng = numpy_generator(seed, f"views/{who.name}", 0)
    drawn = sample_factors(most, rng)
    rounds = range(0, most, len(SCENES))
    scenes = np.concatenate([rng.permutation(len(SCENES)) for _ in rounds])[:most]
    x, y = (rng.uniform(0, 1, 2) + np.arange(most)[:, None] * PLASTIC).T % 1
    x, y = (low + (high - low) * u for u, (low, high) in ((x, X_RANGE), (y, Y_RANGE)))
    placed = replace(drawn, scene=scenes, x=x, y=y)
    factors = closer(dress(placed, who), reach)[slice(n)]
    if constant:
        held = {name: getattr(factors, name)[:1].repeat(n) for name in TWINS[constant]}
        factors = replace(factors, **held)
    return factors


def twins(factors: Factors, seed: int, *kinds: str) -> Factors:
    """Draw the same characters with other positions, poses or scenes (all three by default).

    Parameters
    ----------
    factors : Factors
        Of the training pictures.
    seed : int
        Of the twins; each seed gives another set.
    *kinds : str
        Of :data:`TWINS`; what is not named stays as in the training pictures.
    """
    other = sample_factors(len(factors), numpy_generator(seed, "twins", 0))
    names = [name for kind in (kinds or TWINS) for name in TWINS[kind]]
    return replace(factors, **{name: getattr(other, name) for name in names})


def closer(factors: Factors, reach: float) -> Factors:
    """Draw positions together around the middle of their ranges, to a share ``reach`` of them."""
    middle_x, middle_y = sum(X_RANGE) / 2, sum(Y_RANGE) / 2
    return replace(
        factors,
        x=middle_x + reach * (factors.x - middle_x),
        y=middle_y + reach * (factors.y - middle_y),
    )
