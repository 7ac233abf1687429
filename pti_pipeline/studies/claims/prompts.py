"""Prompts of the claims' samples, simple and hard, and what is read of the pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from pti_pipeline.evaluation import ATTRIBUTES, IDENTITY, PLACES
from pti_pipeline.studies.claims.cells import Result
from pti_pipeline.world import factors as f
from pti_pipeline.world.captions import COLUMN_WORDS, SCENE_WORDS

COMPOUND = tuple(
    (
        f"{{}} {'arms up' if i % 2 else 'arms down'} {across} {SCENE_WORDS[scene][0]}",
        {"arms": i % 2, "column": f.COLUMNS.index(name), "scene": f.SCENES.index(scene)},
    )
    for i, scene in enumerate(f.SCENES)
    for name, across in [list(COLUMN_WORDS.items())[i % 3]]
)
"""Three things asked for at once: each scene with one column and one pose."""
KINDS = {"simple": PLACES, "compound": COMPOUND, "attribute": ATTRIBUTES}
PROMPTS = tuple(text for prompts in KINDS.values() for text, _ in prompts)


def read_samples(
    plain: dict[str, Tensor], edited: dict[str, Tensor], training: dict[str, Tensor], seeds: int
) -> Result:
    """What samples show, as numbers and short lists.

    Parameters
    ----------
    plain, edited : dict of str to Tensor
        Factors read from samples of :data:`PLAIN`, and of :data:`PROMPTS` with ``seeds`` each.
    training : dict of str to Tensor
        Factors read from the training pictures.
    """
    shares = {k: float((plain[k] == training[k].mode().values).float().mean()) for k in IDENTITY}
    places = [[round(1000 * float(v)) for v in plain[axis]] for axis in ("x", "y")]
    return {
        "appearance": sum(shares.values()) / len(shares),
        "identity": shares,
        "obeyed": obeyed(edited, seeds),
        "x": places[0],
        "y": places[1],
        "scene": plain["scene"].tolist(),
        "size": [round(1000 * float(v)) for v in plain["size"]],
        "facing": plain["facing"].tolist(),
        "arms": plain["arms"].tolist(),
    }


def obeyed(edited: dict[str, Tensor], seeds: int) -> dict[str, float]:
    """Share of samples of each kind of prompt that show all that was asked."""
    start, shares = 0, {}
    for kind, prompts in KINDS.items():
        right = []
        for _, asked in prompts:
            rows = slice(start, start := start + seeds)
            right.append(torch.stack([edited[k][rows] == v for k, v in asked.items()]).all(0))
        shares[kind] = float(torch.cat(right).float().mean())
    return shares
