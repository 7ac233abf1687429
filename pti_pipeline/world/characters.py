"""The characters: limbs, ears, a body, a face, an emblem and a hat, painted back to front."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pti_pipeline.world.factors import EMBLEMS, HATS, SPECIES, Factors
from pti_pipeline.world.shapes import (
    Canvas,
    Field,
    box,
    ellipse,
    per_picture,
    segment,
    triangle,
)

OUTLINE = 0.09
"""Width of the dark outline, in body half-widths."""

HALF_WIDTH = {"robot": 0.94, "cat": 0.74, "bear": 1.0, "rabbit": 0.66, "ghost": 0.72, "alien": 0.6}
EYE_RGB = np.array([[0.05, 0.05, 0.1], [0.1, 0.45, 0.95], [0.8, 0.1, 0.1]])


class Pen:
    """Paints in a character's own coordinates: ``u`` to where it faces, ``v`` down, body = 1."""

    def __init__(self, canvas: Canvas, factors: Factors) -> None:
        self.canvas, self.scale = canvas, per_picture(factors.size)
        facing = per_picture(np.where(factors.facing == 1, 1.0, -1.0))
        self.u = (canvas.x - per_picture(factors.x)) / self.scale * facing
        self.v = (canvas.y - per_picture(factors.y)) / self.scale

    def fill(self, field: Field, color: ArrayLike, where: ArrayLike | None = None) -> None:
        """Paint ``field``, a distance in body units."""
        self.canvas.paint(field * self.scale, color, where)

    def outlined(
        self, field: Field, color: ArrayLike, line: ArrayLike, where: ArrayLike | None = None
    ) -> None:
        """Paint ``field`` with an outline around it."""
        self.fill(field - OUTLINE, line, where)
        self.fill(field, color, where)


def paint_characters(canvas: Canvas, factors: Factors) -> None:
    """Paint each picture's character onto ``canvas``."""
    pen = Pen(canvas, factors)
    line = _outline_color(factors.rgb)
    _limbs(pen, factors, line)
    _ears(pen, factors, line)
    body = _body(pen, factors)
    pen.outlined(body, factors.rgb, line)
    _emblem(pen, factors, body + 0.08)
    _face(pen, factors)
    _hat(pen, factors, _outline_color(factors.hat_rgb))


def _is(factors: Factors, *names: str) -> NDArray[np.bool_]:
    return np.isin(factors.species, [SPECIES.index(name) for name in names])


def _outline_color(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dark around light colors, gray around black."""
    return np.where(rgb.mean(1, keepdims=True) < 0.25, 0.55, rgb * 0.35)


def _width(factors: Factors) -> NDArray[np.float32]:
    return per_picture(np.array([HALF_WIDTH[name] for name in SPECIES])[factors.species])


def _limbs(pen: Pen, factors: Factors, line: NDArray[np.float64]) -> None:
    limb, width, up = 0.8 * factors.rgb, _width(factors), factors.arms == 1
    for side in (-1, 1):
        leg = segment(pen.u, pen.v, side * 0.36, 0.6, side * 0.4, 1.08, 0.16)
        pen.outlined(leg, limb, line, ~_is(factors, "ghost"))
        for end, where in ((-0.7, up), (0.66, ~up)):
            shoulder = side * 0.8 * width
            hand = side * (width + (0.42 if end < 0 else 0.24))
            pen.outlined(segment(pen.u, pen.v, shoulder, 0.1, hand, end, 0.16), limb, line, where)
    tail = segment(pen.u, pen.v, -0.5, 0.85, -1.4, 0.25, 0.15)
    pen.outlined(tail, limb, line, _is(factors, "cat"))


def _ears(pen: Pen, factors: Factors, line: NDArray[np.float64]) -> None:
    u, v, rgb, inner = pen.u, pen.v, factors.rgb, factors.belly_rgb
    for side in (-1, 1):
        cat, bear, rabbit, alien = (_is(factors, n) for n in ("cat", "bear", "rabbit", "alien"))
        pen.outlined(triangle(u, v, side * 0.52, -0.4, 1.15, 0.42), rgb, line, cat)
        pen.outlined(ellipse(u, v, side * 0.86, -0.72, 0.4, 0.4), rgb, line, bear)
        pen.fill(ellipse(u, v, side * 0.86, -0.72, 0.2, 0.2), 0.5 * rgb + 0.3, bear)
        pen.outlined(ellipse(u, v, side * 0.42, -1.2, 0.2, 0.66), rgb, line, rabbit)
        pen.fill(ellipse(u, v, side * 0.42, -1.2, 0.09, 0.46), (1.0, 0.75, 0.8), rabbit)
        pen.fill(segment(u, v, side * 0.25, -0.7, side * 0.75, -1.35, 0.07), line, alien)
        pen.fill(ellipse(u, v, side * 0.75, -1.38, 0.18, 0.18), inner, alien)
        ear = box(u, v, side * 1.08, -0.15, 0.15, 0.3)
        pen.outlined(ear, inner, line, _is(factors, "robot"))


def _body(pen: Pen, factors: Factors) -> Field:
    u, v, width = pen.u, pen.v, _width(factors)
    square = box(u, v, 0.0, 0.0, 0.94, 0.82, 0.06)
    hood = ellipse(u, v, 0.0, -0.25, 0.7, 0.75)
    flare = np.abs(u) - 0.7 - 0.35 * (v + 0.25)
    hem = v - 1.05 - 0.18 * np.sin(u * 9)
    ghost = np.minimum(hood, np.maximum(np.maximum(flare, -0.25 - v), hem))
    round_body = ellipse(u, v, 0.0, 0.0, width, 0.95)
    body: Field = np.where(
        per_picture(_is(factors, "robot")) > 0,
        square,
        np.where(per_picture(_is(factors, "ghost")) > 0, ghost, round_body),
    )
    return body


def _emblem(pen: Pen, factors: Factors, inside: Field) -> None:
    u, v = pen.u, pen.v
    shapes: dict[str, list[Field]] = {
        "belly": [ellipse(u, v, 0.0, 0.5, 0.5, 0.38)],
        "dot": [ellipse(u, v, 0.0, 0.46, 0.24, 0.24)],
        "stripes": [box(u, v, 0.0, y, 2.0, 0.085) for y in (0.2, 0.48, 0.76)],
        "cross": [box(u, v, 0.0, 0.46, 0.48, 0.14), box(u, v, 0.0, 0.46, 0.14, 0.42)],
        "half": [u + 0 * v],
    }
    for index, name in enumerate(EMBLEMS):
        for shape in shapes[name]:
            pen.fill(np.maximum(shape, inside), factors.belly_rgb, factors.emblem == index)


def _face(pen: Pen, factors: Factors) -> None:
    u, v, iris = pen.u, pen.v, EYE_RGB[factors.eyes]
    one = _is(factors, "alien")
    for side in (-1, 1):
        pen.fill(ellipse(u, v, side * 0.31 + 0.14, -0.3, 0.25, 0.27), (1.0, 1.0, 1.0), ~one)
        pen.fill(ellipse(u, v, side * 0.31 + 0.26, -0.28, 0.14, 0.17), iris, ~one)
    pen.fill(ellipse(u, v, 0.1, -0.28, 0.4, 0.38), (1.0, 1.0, 1.0), one)
    pen.fill(ellipse(u, v, 0.27, -0.25, 0.2, 0.23), iris, one)


def _hat(pen: Pen, factors: Factors, line: NDArray[np.float64]) -> None:
    u, v = pen.u, pen.v
    brim, tube = box(u, v, 0.0, -0.78, 0.86, 0.12), box(u, v, 0.0, -1.22, 0.46, 0.44)
    dome = np.maximum(ellipse(u, v, 0.0, -0.6, 0.7, 0.5), v + 0.58)
    peak = box(u, v, 0.82, -0.66, 0.6, 0.11)
    spikes = [triangle(u, v, x, -0.76, 0.82, 0.27) for x in (-0.5, 0.0, 0.5)]
    parts: dict[str, list[Field]] = {
        "hat": [tube, brim],
        "cap": [dome, peak],
        "crown": [*spikes, box(u, v, 0.0, -0.76, 0.74, 0.13)],
    }
    for name, shapes in parts.items():
        where = factors.hat == HATS.index(name)
        for shape in shapes:
            pen.fill(shape - 0.06, line, where)
        for shape in shapes:
            pen.fill(shape, factors.hat_rgb, where)
