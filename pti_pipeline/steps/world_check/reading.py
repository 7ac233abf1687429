"""How far the readers can be trusted: on clean renders, and against each other on samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.randomness import numpy_generator
from pti_pipeline.sampling import to_uint8
from pti_pipeline.steps.world_check.drawing import as_images
from pti_pipeline.steps.world_check.measure import Measure
from pti_pipeline.world import Factors, render, sample_factors
from pti_pipeline.world.analytic import read_picture
from pti_pipeline.world.reader import CLASSES, PLACES, Reader, class_targets, place_targets

LEAST = {"x": 0.97, "y": 0.97, "size": 0.90}
TELLING = 0.25
"""Smallest RGB distance between a body and its emblem at which the emblem counts as visible."""


def clean_renders(reader: Reader, n: int) -> Iterator[Measure]:
    """Accuracy and R2 of the trained reader on renders it never saw, held-out traits too."""
    factors = sample_factors(n, numpy_generator(0, "check/renders", 0), held_out=True)
    read = reader.read(as_images(render(factors)))
    shown = visible(factors)
    for name, true in class_targets(factors).items():
        rows = shown.get(name, np.ones(n, bool))
        share = float((read[name] == true).numpy()[rows].mean())
        yield Measure("reader", name, share, least=0.98, chance=1 / CLASSES[name])
    for name, true in zip(PLACES, place_targets(factors).T, strict=True):
        yield Measure("reader", f"{name} (R2)", r2(read[name], true), least=LEAST[name])


def visible(factors: Factors) -> dict[str, NDArray[np.bool_]]:
    """Where a factor can be seen at all: a hat's color on a hat, an emblem that stands out."""
    telling = np.linalg.norm(factors.rgb - factors.belly_rgb, axis=1) > TELLING
    return {"hat_color": factors.hat > 0, "emblem": telling, "belly": telling}


def agreement(reader: Reader, images: Tensor) -> Iterator[Measure]:
    """How often the reader without learning sees the same in the base model's samples."""
    read = reader.read(images)
    rows = [read_picture(picture) for picture in to_uint8(images)]
    plain = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    found = ~np.isnan(plain["x"])
    for name in ("color", "scene"):
        share = float((read[name].numpy() == plain[name]).mean())
        yield Measure("two readers", name, share, least=0.9)
    for name in ("x", "y"):
        pair = np.corrcoef(read[name].numpy()[found], plain[name][found])
        yield Measure("two readers", f"{name} (correlation)", float(pair[0, 1]), least=0.9)
    yield Measure("two readers", "no figure found", float(1 - found.mean()))


def r2(read: Tensor, true: Tensor) -> float:
    """Share of the variance explained; 1 is perfect."""
    return float(1 - (read - true).square().mean() / true.var(unbiased=False))
