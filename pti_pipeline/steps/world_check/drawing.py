"""Samples of the base model, and what the trained reader sees in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.characters import class_word, draw
from pti_pipeline.families.base import BaseModel
from pti_pipeline.randomness import numpy_generator
from pti_pipeline.settings import SampleSettings
from pti_pipeline.world import Factors, caption, sample_factors
from pti_pipeline.world.factors import COLORS, HELD_OUT, SPECIES


@dataclass(frozen=True)
class Samples:
    """Pictures of the base model: what was asked for and what came.

    Attributes
    ----------
    prompts : list of str, length n
    images : Tensor, shape (n, 3, S, S), in [-1, 1]
    """

    prompts: list[str]
    images: Tensor

    def __getitem__(self, rows: slice) -> Samples:
        return Samples(self.prompts[rows], self.images[rows])


def sample_base(
    base: BaseModel, prompts: list[str], how: SampleSettings, first: int = 0
) -> Iterator[Samples]:
    """Draw each prompt once, with seeds ``first``, ``first + 1``, ..., 64 at a time."""
    for start in range(0, len(prompts), 64):
        part = prompts[start : start + 64]
        seeds = [first + start + i for i in range(len(part))]
        yield Samples(part, draw(base, class_word(), part, seeds, how)[0].cpu())


def joined(parts: list[Samples]) -> Samples:
    """Put samples together."""
    return Samples([p for s in parts for p in s.prompts], torch.cat([s.images for s in parts]))


def captions(n: int) -> tuple[Factors, list[str]]:
    """Fresh factors and one caption of each, as the training drew them."""
    factors = sample_factors(n, numpy_generator(0, "check/captions", 0))
    rng = numpy_generator(0, "check/words", 0)
    return factors, [caption(factors, i, rng) for i in range(n)]


def silent_prompts(n: int) -> list[str]:
    """Name a colored species and nothing else: neither place, pose nor scene."""
    pairs = [(s, c) for s in SPECIES for c in COLORS if (s, c) not in HELD_OUT]
    return [f"a photo of a {c} {s}" for s, c in (pairs[i % len(pairs)] for i in range(n))]


def as_images(pixels: NDArray[np.uint8]) -> Tensor:
    """Turn renders (n, S, S, 3) uint8 into (n, 3, S, S) float32 in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
