"""Masks of the subject: by the world's palette, or by what the class word attends to."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline.characters import PLAIN, Characters, encode, name_positions, tokenized
from pti_pipeline.families.base import BaseModel
from pti_pipeline.layout import otsu_mask
from pti_pipeline.randomness import generator
from pti_pipeline.sampling import to_uint8
from pti_pipeline.world.analytic import find_figure, read_scene

TIMES = (0.3, 0.5, 0.7)
"""Timesteps at which attention is read, in shares of the base's."""
BATCH = 16

Masks = NDArray[np.bool_]
"""Shape (n, S, S): True on the subject; all False where none was found."""


def palette_masks(images: Tensor) -> Masks:
    """Figures of pictures (n, 3, S, S) of the embedded world, by its colors."""
    pictures = to_uint8(images).astype(np.float64) / 255
    return np.stack([find_figure(rgb, read_scene(rgb)) for rgb in pictures])


def attention_masks(base: BaseModel, who: Characters, images: Tensor) -> Masks:
    """Regions of pictures (n, 3, S, S) that the character's name attends to.

    Otsu's threshold of :func:`heat`; of that the largest region.
    """
    return np.stack([otsu_mask(one) for one in heat(base, who, images)])


def heat(base: BaseModel, who: Characters, images: Tensor) -> NDArray[np.float64]:
    """Attention on a character's name at each pixel of given pictures.

    The picture is noised and shown to the denoiser with the prompt "a photo of ..."; what the
    name draws there is averaged over heads, timesteps and layers (DAAM, Tang et al. 2022). The
    layers of the lowest resolution are left out where there are others: they see no shapes.

    Parameters
    ----------
    base : BaseModel
    who : Characters
        One character, or the class word.
    images : Tensor, shape (n, 3, S, S), in [-1, 1]

    Returns
    -------
    ndarray, shape (n, S, S), 0 to 1
    """
    ids = tokenized(base, who, [PLAIN])
    own, states = name_positions(base, who, ids)[0], encode(base, who, [PLAIN])[0]
    parts = [
        torch.stack(
            [_heat(base, part, states, own, index, images.shape[-1]) for index in range(len(TIMES))]
        ).mean(0)
        for part in images.split(BATCH)
    ]
    return torch.cat(parts).double().cpu().numpy()


@torch.no_grad()
def _heat(
    base: BaseModel, images: Tensor, states: Tensor, own: Tensor, index: int, size: int
) -> Tensor:
    """Heat (n, S, S) at one timestep; every picture gets the same noise."""
    latents, _ = base.encode_images(images)
    drawn = torch.randn(latents[:1].shape, generator=generator(0, "mask", index))
    times = torch.full((len(images),), int(TIMES[index] * base.timesteps), device=base.device)
    noisy = base.add_noise(latents, drawn.to(base.device).expand_as(latents), times)
    with base.attention(lambda probabilities: probabilities[..., own].sum(-1).mean(1)) as layers:
        base.predict(noisy, times, states.expand(len(images), -1, -1))
    coarsest = min(layer.shape[1] for layer in layers)
    fine = [layer for layer in layers if layer.shape[1] > coarsest] or layers
    maps = [layer.unflatten(1, (int(layer.shape[1] ** 0.5), -1))[:, None] for layer in fine]
    grown = [F.interpolate(m, (size, size), mode="bicubic", align_corners=False) for m in maps]
    return torch.cat(grown, 1).mean(1)
