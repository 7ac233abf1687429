"""Whether samples show what their prompt says, and vary in what it leaves open."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import entropy, kstest, uniform
from torch import Tensor

from pti_pipeline.steps.world_check.drawing import Samples
from pti_pipeline.steps.world_check.measure import Measure
from pti_pipeline.world.factors import SCENES, X_RANGE, Y_RANGE
from pti_pipeline.world.meaning import VALUES, meaning
from pti_pipeline.world.reader import Reader

GATED = ("color", "species", "hat", "scene", "column", "row", "arms")
ALSO = ("hat_color", "emblem", "facing", "eyes")


def obedience(reader: Reader, samples: Samples) -> Iterator[Measure]:
    """Share of the samples that show a factor as their caption says, where it says it."""
    read = reader.read(samples.images)
    said = [meaning(prompt) for prompt in samples.prompts]
    for name in (*GATED, *ALSO):
        rows = [i for i, words in enumerate(said) if name in words]
        right = [int(read[name][i]) == said[i][name] for i in rows]
        least = 0.9 if name in GATED else None
        kinds = len(VALUES[name]) - (name == "hat")  # captions never say "none"
        yield Measure("obedience", name, float(np.mean(right)), least, chance=1 / kinds)


def freedom(group: str, reader: Reader, images: Tensor) -> Iterator[Measure]:
    """Spread of what a silent prompt leaves open: places, scene and pose.

    Places by the Kolmogorov-Smirnov distance to the training's uniform distribution (0 is equal),
    the others by their entropy as a share of the largest possible.
    """
    read = reader.read(images)
    for name, (low, high) in (("x", X_RANGE), ("y", Y_RANGE)):
        ks = kstest(read[name].numpy(), uniform(low, high - low).cdf).statistic
        yield Measure(group, f"{name} (KS)", float(ks), most=0.08)
    for name, kinds in (("scene", len(SCENES)), ("arms", 2), ("facing", 2)):
        counts = np.bincount(read[name].numpy(), minlength=kinds)
        yield Measure(group, f"{name} (entropy)", float(entropy(counts, base=kinds)), least=0.9)
