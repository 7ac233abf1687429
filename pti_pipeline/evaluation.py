"""What is measured of characters from samples that were read: editability, leak, likeness."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import leak, metrics
from pti_pipeline.randomness import numpy_generator
from pti_pipeline.world import factors as f
from pti_pipeline.world.captions import COLUMN_WORDS, SCENE_WORDS

Values = NDArray[np.floating]

IDENTITY = ("species", "color", "belly", "hat", "hat_color", "emblem", "eyes")
PLACES = (
    *((f"{{}} {words}", {"column": f.COLUMNS.index(k)}) for k, words in COLUMN_WORDS.items()),
    *((f"{{}} {SCENE_WORDS[name][0]}", {"scene": f.SCENES.index(name)}) for name in f.SCENES),
    ("{} arms up", {"arms": 1}),
    ("{} arms down", {"arms": 0}),
)
"""Edit prompts of the world, and the factors asked for: another place, scene or pose."""
ATTRIBUTES = tuple(
    (
        f"{{}} with a {color} {hat}",
        {"hat": f.HATS.index(hat), "hat_color": f.COLORS.index(color)},
    )
    for hat, color in (
        ("hat", "red"),
        ("hat", "green"),
        ("cap", "white"),
        ("cap", "blue"),
        ("crown", "orange"),
        ("crown", "pink"),
    )
)
"""Another hat: the token must let go of something that it says itself, which is lost first."""
EDITS = (*PLACES, *ATTRIBUTES)

PHOTO_EDITS = (
    "a photo of {} on the beach",
    "a photo of {} in the snow",
    "a photo of {} in the jungle",
    "a photo of {} on a city street at night",
    "a photo of {} in a kitchen",
    "a photo of {} on top of a wooden floor",
    "an oil painting of {}",
    "a pencil drawing of {}",
    "a watercolor painting of {}",
    "a photo of {} with a red hat",
    "a photo of {} with sunglasses",
    "a photo of {} with a blue scarf",
)
"""Edit prompts elsewhere: places, styles and accessories, as in DreamBooth (Ruiz et al. 2023)."""

FEWEST = 8
"""Samples with a mask, and their pairs with a reference's, below which no leak is told."""


def obedience(read: dict[str, Tensor], seeds: int) -> float:
    """Share of the samples of :data:`EDITS`, ``seeds`` each, that show all that was asked."""
    right = [
        torch.stack([read[k][i * seeds : (i + 1) * seeds] == v for k, v in asked.items()]).all(0)
        for i, (_, asked) in enumerate(EDITS)
    ]
    return float(torch.cat(right).float().mean())


def appearance(read: dict[str, Tensor], training: dict[str, Tensor]) -> float:
    """Mean share of samples that agree with the training pictures in a factor of identity.

    0 to 1, higher is better. The truth is what the reader sees most often in the training set.
    """
    shares = [(read[k] == training[k].mode().values).float().mean() for k in IDENTITY]
    return float(torch.stack(shares).mean())


def margin(read: dict[str, Tensor]) -> float:
    """By how much samples of edit prompts are liker to what was asked than to the other prompts.

    Difference of mean cosines, -2 to 2, higher is better; 0 if pictures are the same whatever was
    asked. CLIP-T alone is far from 0 for any picture, so that a share of it says little.
    """
    return float((read["clip_t"] - read["clip_t_other"]).mean())


def layouts(read: dict[str, Tensor]) -> NDArray[np.floating]:
    """Where the characters stand: x and y, shape (n, 2)."""
    return torch.stack([read["x"], read["y"]], 1).double().numpy()


def leaks(
    samples: Values, references: Mapping[str, Values], training: Values, group: str = "leak/"
) -> dict[str, float]:
    """Leak against each reference, by logged name: ``leak/class_auc`` and so on.

    Parameters
    ----------
    samples : ndarray, shape (n, d)
        Layouts; NaN where no mask was found.
    references : mapping of str to ndarray, each (n, d)
        Layouts drawn with the same seeds; the first one's covariance is the unit.
    training : ndarray, shape (N, d)
    group : str
        Before each name.
    """
    values: dict[str, float] = {}
    scale = _found(next(iter(references.values())))
    known = leak.whiten(_found(training), scale)
    for name, other in references.items():
        both = np.isfinite(samples).all(1) & np.isfinite(other).all(1)
        near, far = (
            leak.nearest(leak.whiten(part[both], scale), known) for part in (samples, other)
        )
        low, high = leak.auc_interval(near, far, numpy_generator(0, "bootstrap", 0))
        values[f"{group}{name}_auc"] = leak.auc(near, far)
        values[f"{group}{name}_auc_low"], values[f"{group}{name}_auc_high"] = low, high
        values[f"{group}{name}_p"] = leak.p_value(near, far)
    return values


def copying(samples: Values, usual: Values, training: Values) -> dict[str, float]:
    """Whether samples are nearer to the training positions than to other such sets.

    This tells copying from mere centring, where it is known what pictures could have been: in the
    world, sets of positions are drawn from its ranges. ``usual`` are positions of the class word.
    """

    def another(k: int) -> Values:
        rng = numpy_generator(0, "layout sets", k)
        low, high = np.array([f.X_RANGE, f.Y_RANGE]).T
        return leak.whiten(rng.uniform(low, high, training.shape), usual)

    own, known = leak.whiten(samples, usual), leak.whiten(training, usual)
    values = {"leak/copying_p": leak.copying_p(own, known, another)}
    if len(training) > 1:
        values["leak/memorised"] = leak.memorised(own, known)
    return values


def too_few(samples: Values, references: Mapping[str, Values], training: Values) -> str:
    """Say why layouts tell no leak, or nothing if they do."""
    if not len(_found(training)):
        return "no training picture has a mask"
    for name, other in references.items():
        both = int((np.isfinite(samples).all(1) & np.isfinite(other).all(1)).sum())
        if both < FEWEST:
            return f"only {both} of {len(samples)} samples have a mask, as those of the {name}"
    return ""


def scene_leak(
    samples: Tensor, references: Mapping[str, Tensor], training: Tensor
) -> dict[str, float]:
    """Whether samples (n,) show the training scenes oftener than references at equal seeds.

    Nothing where the training pictures show every scene of the world: then nothing could leak.
    """
    if len(training.unique()) == len(f.SCENES):
        return {}
    own = torch.isin(samples, training).numpy()
    values = {"leak/scene_share": float(own.mean())}
    for name, other in references.items():
        there = torch.isin(other, training).numpy()
        values[f"leak/scene_{name}_share"] = float(there.mean())
        values[f"leak/scene_{name}_p"] = metrics.oftener(own, there)
    return values


def likeness(samples: Tensor, training: Tensor) -> float:
    """Mean cosine of features (n, d) with the training pictures' (N, d), -1 to 1, higher is better.

    Rows without a mask are NaN and left out; NaN if all are.
    """
    if samples.shape[1] != training.shape[1]:  # no mask at all, of the one or of the others
        return float("nan")
    return float((samples @ training.T).nanmean())


def _found(layouts: Values) -> Values:
    """Rows that have a mask."""
    return layouts[np.isfinite(layouts).all(1)]
