"""Measures how well the embedded model obeys its captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pti_pipeline.characters import Characters, draw
from pti_pipeline.families import load
from pti_pipeline.figures import grid
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings
from pti_pipeline.world import factors as f
from pti_pipeline.world.reader import load_reader

VALUES = {
    "color": f.COLORS,
    "scene": f.SCENES,
    "column": f.COLUMNS,
    "species": f.SPECIES,
    "hat": f.HATS,
    "arms": ("down", "up"),
}
PROMPTS = (
    ("a photo of a red rabbit with a hat arms up on the left in the snow",
     ("red", "snow", "left", "rabbit", "hat", "up")),
    ("a photo of a blue bear with a crown arms down on the right in the forest",
     ("blue", "forest", "right", "bear", "crown", "down")),
    ("a photo of a green ghost with a cap arms up on the left in space",
     ("green", "space", "left", "ghost", "cap", "up")),
    ("a photo of a yellow cat with a hat arms down on the right on the beach",
     ("yellow", "beach", "right", "cat", "hat", "down")),
    ("a photo of a orange robot with a crown arms up on the left in the city",
     ("orange", "city", "left", "robot", "crown", "up")),
    ("a photo of a pink alien with a cap arms down on the right in the desert",
     ("pink", "desert", "right", "alien", "cap", "down")),
)  # fmt: skip
GATES = {"color": 0.9, "scene": 0.9, "column": 0.9, "species": 0.6}
"""Least share of samples that must show what was asked; the others are reported as they are."""


@dataclass(frozen=True)
class Obedience:
    """One line of the check: share of samples that show a factor as asked, its gate and chance."""

    factor: str
    share: float
    gate: float | None
    chance: float

    @property
    def passed(self) -> bool:
        """Whether there is no gate, or it is reached."""
        return self.gate is None or self.share >= self.gate


def check_world(seeds: int, how: SampleSettings) -> tuple[list[Obedience], NDArray[np.uint8]]:
    """Draw six prompts with ``seeds`` seeds each and read them back; also return the grid."""
    prompts = [text for text, _ in PROMPTS for _ in range(seeds)]
    word = Characters("", torch.zeros(1, 0, 1))
    images = draw(load("world"), word, prompts, [*range(seeds)] * len(PROMPTS), how)[0]
    read = load_reader().read(images.cpu())
    rows = []
    for index, (factor, names) in enumerate(VALUES.items()):
        asked = torch.tensor([names.index(values[index]) for _, values in PROMPTS])
        right = read[factor] == asked.repeat_interleave(seeds)
        share = float(right.float().mean())
        rows.append(Obedience(factor, share, GATES.get(factor), 1 / len(names)))
    return rows, grid(to_uint8(images), seeds)
