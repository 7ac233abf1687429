"""The factors of the world: what a picture shows, as columns of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

SPECIES = ("robot", "cat", "bear", "rabbit", "ghost", "alien")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
HATS = ("none", "hat", "cap", "crown")
EMBLEMS = ("belly", "dot", "stripes", "cross", "half")
EYES = ("black", "blue", "red")
SCENES = ("forest", "desert", "beach", "snow", "city", "space", "room")
COLUMNS = ("left", "middle", "right")
ROWS = ("top", "center", "bottom")

UNNAMED_EMBLEMS = ("cross", "half")
"""Emblems of held-out characters: no training picture shows them and no caption names them."""

HELD_OUT = (("rabbit", "purple"), ("robot", "yellow"), ("cat", "blue"))
"""Species and colors that never meet in training."""

X_RANGE = (0.25, 0.75)
Y_RANGE = (0.38, 0.70)
SIZE_RANGE = (0.16, 0.23)

HUES = {
    "red": (0, 6),
    "orange": (27, 5),
    "yellow": (52, 6),
    "green": (122, 16),
    "blue": (222, 12),
    "purple": (277, 9),
    "pink": (326, 10),
}
"""Hue of a color's name in degrees, and how far it may be off."""


@dataclass(frozen=True)
class Factors:
    """Factors of ``n`` pictures, one array each.

    Identity: ``species``, ``color``, ``belly``, ``hat``, ``hat_color``, ``emblem`` and ``eyes``
    (indices into the vocabularies above, int64), and the exact ``rgb``, ``belly_rgb`` and
    ``hat_rgb`` (float64 in [0, 1], shape (n, 3)). Pose: ``x``, ``y`` (center of the body) and
    ``size`` (half-width of the body), in fractions of the side; ``facing`` (1 = right) and
    ``arms`` (1 = up). Environment: ``scene`` and ``scene_seed`` (of its details).
    """

    species: NDArray[np.int64]
    color: NDArray[np.int64]
    belly: NDArray[np.int64]
    hat: NDArray[np.int64]
    hat_color: NDArray[np.int64]
    emblem: NDArray[np.int64]
    eyes: NDArray[np.int64]
    rgb: NDArray[np.float64]
    belly_rgb: NDArray[np.float64]
    hat_rgb: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    size: NDArray[np.float64]
    facing: NDArray[np.int64]
    arms: NDArray[np.int64]
    scene: NDArray[np.int64]
    scene_seed: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.species)

    def __getitem__(self, rows: slice | NDArray[np.int64] | Sequence[int]) -> Factors:
        """Pictures ``rows``, as factors again."""
        return Factors(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def concatenate(parts: Sequence[Factors]) -> Factors:
    """Join factors end to end."""
    return Factors(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Factors)}
    )


def sample_factors(n: int, rng: np.random.Generator, held_out: bool = False) -> Factors:
    """Draw the factors of ``n`` pictures, each independent but for the held-out ones.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    held_out : bool
        Draw also what the base model never sees: the pairs of :data:`HELD_OUT` and the emblems
        of :data:`UNNAMED_EMBLEMS`.
    """
    species = rng.integers(0, len(SPECIES), n)
    color = rng.integers(0, len(COLORS), n)
    if not held_out:
        color = _redraw(color, lambda c: _is_held_out(species, c), rng)
    belly = _redraw(rng.integers(0, len(COLORS), n), lambda b: b == color, rng)
    hat_color = rng.integers(0, len(COLORS), n)
    emblems = [0.3, 0.2, 0.2, 0.15, 0.15] if held_out else [0.5, 0.25, 0.25, 0.0, 0.0]
    return Factors(
        species=species,
        color=color,
        belly=belly,
        hat=rng.choice(len(HATS), n, p=[0.34, 0.22, 0.22, 0.22]),
        hat_color=hat_color,
        emblem=rng.choice(len(EMBLEMS), n, p=emblems),
        eyes=rng.integers(0, len(EYES), n),
        rgb=shade(color, rng),
        belly_rgb=shade(belly, rng),
        hat_rgb=shade(hat_color, rng),
        x=rng.uniform(*X_RANGE, n),
        y=rng.uniform(*Y_RANGE, n),
        size=rng.uniform(*SIZE_RANGE, n),
        facing=rng.integers(0, 2, n),
        arms=rng.integers(0, 2, n),
        scene=rng.integers(0, len(SCENES), n),
        scene_seed=rng.integers(0, 2**31, n),
    )


def shade(color: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a shade of each named color; shape (n, 3), in [0, 1]."""
    n = len(color)
    hue = rng.uniform(0, 360, n)
    saturation, value = rng.uniform(0.7, 1.0, n), rng.uniform(0.75, 1.0, n)
    for name, (center, spread) in HUES.items():
        rows = color == COLORS.index(name)
        hue[rows] = center + rng.uniform(-spread, spread, rows.sum())
    unit = rng.uniform(0, 1, (2, n))
    pink, white, black = (color == COLORS.index(name) for name in ("pink", "white", "black"))
    saturation[pink] = 0.4 + 0.25 * unit[0, pink]
    saturation[white], value[white] = 0.06 * unit[0, white], 0.92 + 0.08 * unit[1, white]
    saturation[black], value[black] = 0.2 * unit[0, black], 0.08 + 0.12 * unit[1, black]
    return hsv_to_rgb(hue, saturation, value)


def hsv_to_rgb(
    hue: NDArray[np.float64], saturation: NDArray[np.float64], value: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Convert hue in degrees, saturation and value in [0, 1] to (n, 3) RGB in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[:, None] / 60) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def column(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into :data:`COLUMNS` of each ``x``: thirds of its range."""
    return _third(x, X_RANGE)


def row(y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into :data:`ROWS` of each ``y``: thirds of its range."""
    return _third(y, Y_RANGE)


def _third(values: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.int64]:
    return np.digitize(values, np.linspace(*bounds, 4)[1:-1]).astype(np.int64)


def _is_held_out(species: NDArray[np.int64], color: NDArray[np.int64]) -> NDArray[np.bool_]:
    pairs = [(SPECIES.index(s), COLORS.index(c)) for s, c in HELD_OUT]
    return np.any([(species == s) & (color == c) for s, c in pairs], axis=0)


def _redraw(
    values: NDArray[np.int64],
    refused: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    while (rows := refused(values)).any():
        values = values.copy()
        values[rows] = rng.integers(0, len(COLORS), rows.sum())
    return values
