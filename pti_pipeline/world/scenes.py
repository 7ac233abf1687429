"""The seven scenes behind a character: a sky, a ground and a few things that vary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pti_pipeline.world.factors import SCENES, Factors
from pti_pipeline.world.shapes import Canvas, box, ellipse, per_picture, segment, triangle

SKY = {
    "forest": (0.62, 0.82, 0.72),
    "desert": (0.98, 0.83, 0.55),
    "beach": (0.55, 0.82, 0.98),
    "snow": (0.80, 0.88, 0.95),
    "city": (0.72, 0.72, 0.78),
    "space": (0.05, 0.04, 0.16),
    "room": (0.86, 0.72, 0.66),
}
GROUND = {
    "forest": (0.25, 0.50, 0.20),
    "desert": (0.88, 0.66, 0.34),
    "beach": (0.95, 0.88, 0.65),
    "snow": (0.97, 0.98, 1.00),
    "city": (0.36, 0.36, 0.38),
    "space": (0.42, 0.40, 0.48),
    "room": (0.50, 0.32, 0.22),
}

DETAILS = {
    "forest": ((0.35, 0.22, 0.12), (0.08, 0.30, 0.14), (0.08, 0.44, 0.14)),
    "desert": ((1.0, 0.95, 0.6), (0.93, 0.74, 0.42), (0.2, 0.45, 0.2)),
    "beach": ((0.12, 0.45, 0.80), (0.90, 0.97, 1.0), (1.0, 0.93, 0.4)),
    "snow": ((0.62, 0.70, 0.80), (1.0, 1.0, 1.0)),
    "city": ((0.28, 0.28, 0.34), (0.48, 0.48, 0.54), (0.95, 0.85, 0.45)),
    "space": ((1.0, 1.0, 0.9), (0.85, 0.5, 0.3)),
    "room": ((0.96, 0.95, 0.9), (0.5, 0.75, 0.95)),
}
"""Colors of a scene's things; a forest's leaves and a city's towers lie between their two."""

Details = NDArray[np.float32]
"""Uniform numbers in [0, 1] that vary a scene, shape (n, 16)."""


def paint_scenes(canvas: Canvas, factors: Factors) -> None:
    """Fill ``canvas`` with the scenes of ``factors``."""
    details = np.stack(
        [np.random.default_rng(int(s)).uniform(0, 1, 16) for s in factors.scene_seed]
    ).astype(np.float32)
    tint = (details[:, 13:16] - 0.5) * 0.08
    names = [SCENES[s] for s in factors.scene]
    sky = np.array([SKY[name] for name in names]) + tint
    ground = np.array([GROUND[name] for name in names]) + 0.7 * tint
    horizon = 0.66 + 0.10 * details[:, 12]
    canvas.pixels[:] = np.clip(sky, 0, 1)[:, None, None]
    for index, name in enumerate(SCENES):
        rows = np.flatnonzero(factors.scene == index)
        if len(rows) and name != "beach":
            _paint_rows(canvas, rows, PAINTERS[name], horizon, details)
    canvas.paint(per_picture(horizon) - canvas.y, np.clip(ground, 0, 1))
    rows = np.flatnonzero(factors.scene == SCENES.index("beach"))
    if len(rows):
        _paint_rows(canvas, rows, _beach, horizon, details)


def _paint_rows(
    canvas: Canvas,
    rows: NDArray[np.int64],
    painter: Callable[[Canvas, NDArray[np.float32], Details], None],
    horizon: NDArray[np.float32],
    details: Details,
) -> None:
    part = Canvas(len(rows), canvas.size)
    part.pixels = canvas.pixels[rows]
    painter(part, per_picture(horizon[rows]), details[rows])
    canvas.pixels[rows] = part.pixels


def _between(details: Details, column: int, low: float, high: float) -> NDArray[np.float32]:
    return per_picture(low + (high - low) * details[:, column])


def _forest(c: Canvas, horizon: NDArray[np.float32], u: Details) -> None:
    trunk, dark, light = np.array(DETAILS["forest"])
    for k in range(5):
        x = _between(u, k, k / 4 - 0.09, k / 4 + 0.09)
        height = _between(u, 5 + k, 0.34, 0.52)
        c.paint(box(c.x, c.y, x, horizon, 0.02, 0.06), trunk)
        leaves = dark + (light - dark) * u[:, 5 + k, None]
        c.paint(triangle(c.x, c.y, x, horizon, height, 0.12), leaves)


def _desert(c: Canvas, horizon: NDArray[np.float32], u: Details) -> None:
    yellow, sand, green = DETAILS["desert"]
    sun = ellipse(c.x, c.y, _between(u, 0, 0.1, 0.9), _between(u, 1, 0.1, 0.2), 0.08, 0.08)
    c.paint(sun, yellow)
    dune = ellipse(c.x, c.y, _between(u, 2, 0, 1), horizon + 0.08, 0.5, _between(u, 3, 0.15, 0.28))
    c.paint(dune, sand)
    x = _between(u, 4, 0.06, 0.94)
    for stroke in ((0, 0.04, 0, -0.24, 0.028), (0, -0.08, 0.08, -0.13, 0.02)):
        ax, ay, bx, by, radius = stroke
        arm = segment(c.x, c.y, x + ax, horizon + ay, x + bx, horizon + by, radius)
        c.paint(arm, green)


def _beach(c: Canvas, horizon: NDArray[np.float32], u: Details) -> None:
    sea, foam, yellow = DETAILS["beach"]
    c.paint(box(c.x, c.y, 0.5, horizon - 0.1, 1.0, 0.11), sea)
    c.paint(box(c.x, c.y, 0.5, horizon - 0.01, 1.0, 0.014), foam)
    sun = ellipse(c.x, c.y, _between(u, 0, 0.1, 0.9), _between(u, 1, 0.1, 0.2), 0.07, 0.07)
    c.paint(sun, yellow)


def _snow(c: Canvas, horizon: NDArray[np.float32], u: Details) -> None:
    rock, flake = DETAILS["snow"]
    for k in range(2):
        x = _between(u, k, 0.05 + 0.5 * k, 0.45 + 0.5 * k)
        peak = triangle(c.x, c.y, x, horizon, _between(u, 2 + k, 0.3, 0.5), 0.35)
        c.paint(peak, rock)
    for k in range(4):
        x, y = _between(u, 4 + k, 0, 1), _between(u, 8 + k, 0, 0.6)
        c.paint(ellipse(c.x, c.y, x, y, 0.018, 0.018), flake)


def _city(c: Canvas, horizon: NDArray[np.float32], u: Details) -> None:
    dark, light, lit = np.array(DETAILS["city"])
    for k in range(5):
        x = 0.1 + 0.2 * k + _between(u, k, -0.02, 0.02)
        height = _between(u, 5 + k, 0.25, 0.55)
        tower = box(c.x, c.y, x, horizon - height / 2, 0.085, height / 2)
        c.paint(tower, dark + (light - dark) * k / 4)
        for y in (0.08, 0.17):
            c.paint(box(c.x, c.y, x, horizon - height + y, 0.045, 0.02), lit)


def _space(c: Canvas, horizon: NDArray[np.float32], u: Details) -> None:
    star, rust = DETAILS["space"]
    for k in range(6):
        x, y = _between(u, k, 0, 1), _between(u, (k + 5) % 12, 0, 0.62)
        c.paint(ellipse(c.x, c.y, x, y, 0.016, 0.016), star)
    planet = ellipse(c.x, c.y, _between(u, 10, 0.1, 0.9), _between(u, 11, 0.12, 0.25), 0.09, 0.09)
    c.paint(planet, rust)


def _room(c: Canvas, horizon: NDArray[np.float32], u: Details) -> None:
    frame, glass = DETAILS["room"]
    x = _between(u, 0, 0.18, 0.82)
    c.paint(box(c.x, c.y, x, 0.22, 0.14, 0.14), frame)
    c.paint(box(c.x, c.y, x, 0.22, 0.11, 0.11), glass)


PAINTERS = {
    "forest": _forest,
    "desert": _desert,
    "snow": _snow,
    "city": _city,
    "space": _space,
    "room": _room,
}
