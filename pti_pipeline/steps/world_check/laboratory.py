"""Whether conclusions drawn in the world can be trusted: no false leak, no unfair energies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from pti_pipeline import leak
from pti_pipeline.randomness import numpy_generator
from pti_pipeline.steps.world_check.measure import Measure
from pti_pipeline.world import render, sample_factors
from pti_pipeline.world.factors import X_RANGE, Y_RANGE
from pti_pipeline.world.subjects import EVEN_REACH, closer

GROUP = 256
"""Samples on either side of a leak test."""
TRAINING = 6
"""Training pictures of a leak test."""


def null_of_the_leak(layouts: NDArray[np.floating], resamples: int) -> Iterator[Measure]:
    """Hold the base model against itself: AUC about a half, few false alarms.

    Each resample draws two groups of :data:`GROUP` from the pool of layouts (n, 2) and random
    training positions. The bound on alarms is 5 % and what chance adds to it in 19 of 20 checks.
    """
    rng = numpy_generator(0, "check/null", 0)
    aucs, alarms = [], 0
    for _ in range(resamples):
        tuned, reference = layouts[rng.permutation(len(layouts))[: 2 * GROUP]].reshape(2, GROUP, 2)
        training = np.stack([rng.uniform(*X_RANGE, TRAINING), rng.uniform(*Y_RANGE, TRAINING)], 1)
        near, far = (
            leak.nearest(leak.whiten(part, reference), leak.whiten(training, reference))
            for part in (tuned, reference)
        )
        aucs.append(leak.auc(near, far))
        alarms += leak.p_value(near, far) < leak.SIGNIFICANT
    most = float(binom.ppf(0.95, resamples, leak.SIGNIFICANT)) / resamples
    yield Measure("leak's null", "mean AUC", float(np.mean(aucs)), least=0.47, most=0.53)
    yield Measure("leak's null", "false alarms", alarms / resamples, most=most)


def energies(n: int) -> Iterator[Measure]:
    """Mean squared change of the pixels (in [0, 1]) by another character, and by another place.

    The third line is the position edit among positions drawn together by :data:`EVEN_REACH`.
    """
    rng = numpy_generator(0, "check/energy", 0)
    one, other = sample_factors(n, rng), sample_factors(n, rng)
    dressed = replace(one, **{name: getattr(other, name) for name in IDENTITY})
    moved = replace(one, x=other.x, y=other.y)
    even = closer(one, EVEN_REACH), closer(moved, EVEN_REACH)
    appearance = change(render(one), render(dressed))
    yield Measure("energy", "appearance edit", appearance)
    yield Measure("energy", "position edit", change(render(one), render(moved)))
    yield Measure("energy", "position edit, even", change(*map(render, even)))


IDENTITY = (
    *("species", "color", "belly", "hat", "hat_color", "emblem", "eyes"),
    *("rgb", "belly_rgb", "hat_rgb"),
)


def change(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Mean squared difference of pictures, in units of the whole range."""
    return float(np.mean((before / 255.0 - after / 255.0) ** 2))
