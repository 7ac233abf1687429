"""Held-out characters: combinations that no training picture shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pti_pipeline.randomness import numpy_generator
from pti_pipeline.world.factors import (
    COLORS,
    EMBLEMS,
    EYES,
    HATS,
    SCENES,
    SPECIES,
    Factors,
    sample_factors,
    shade,
)

VIEWS = (
    # x, y, scene, facing right, arms up
    (0.29, 0.44, "beach", 1, 0),
    (0.70, 0.64, "forest", 0, 1),
    (0.50, 0.52, "city", 1, 1),
    (0.72, 0.42, "desert", 0, 0),
    (0.31, 0.66, "snow", 1, 1),
    (0.55, 0.67, "room", 0, 0),
)


def mochi() -> Factors:
    """Draw the demo's character six times: a purple rabbit, crowned, with a cross for an emblem.

    No training picture has a purple rabbit or a cross, and no caption can name the cross.
    """
    n = len(VIEWS)
    rng = numpy_generator(0, "mochi", 0)
    x, y, scenes, facing, arms = (np.array(column) for column in zip(*VIEWS, strict=True))

    def always(value: int) -> np.ndarray:
        return np.full(n, value)

    color, belly, crown = (COLORS.index(name) for name in ("purple", "white", "yellow"))
    return replace(
        sample_factors(n, rng),
        species=always(SPECIES.index("rabbit")),
        color=always(color),
        belly=always(belly),
        hat=always(HATS.index("crown")),
        hat_color=always(crown),
        emblem=always(EMBLEMS.index("cross")),
        eyes=always(EYES.index("blue")),
        rgb=shade(always(color)[:1], rng).repeat(n, 0),
        belly_rgb=shade(always(belly)[:1], rng).repeat(n, 0),
        hat_rgb=shade(always(crown)[:1], rng).repeat(n, 0),
        x=x.astype(float),
        y=y.astype(float),
        size=np.full(n, 0.2),
        facing=facing.astype(np.int64),
        arms=arms.astype(np.int64),
        scene=np.array([SCENES.index(name) for name in scenes]),
    )
