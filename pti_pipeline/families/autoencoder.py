"""An autoencoder: pictures to latents and back, a few at once, as its memory goes with pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PIXELS = 2**20
"""At once at most, but one picture at least: one of 1024 pixels a side, four of 512."""
MOST = 64
"""Pictures at once at most, however small."""


def pictures_at_once(side: int) -> int:
    """Pictures of ``side`` pixels that are encoded or decoded at once.

    Examples
    --------
    >>> pictures_at_once(512), pictures_at_once(2048)
    (4, 1)
    """
    return max(1, min(MOST, PIXELS // side**2))


@torch.no_grad()
def encode(vae: Any, pixels: Tensor, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and spread of the scaled latents of pictures.

    Parameters
    ----------
    vae : AutoencoderKL
    pixels : Tensor, shape (N, 3, H, W), in [-1, 1]
    side : int
        Of the square that is as large as the pictures, or larger, in pixels.
    device : torch.device
        Where the autoencoder is.

    Returns
    -------
    mean, spread : Tensor, shape (N, C, h, w), float32
    """
    config, means, spreads = vae.config, [], []
    for few in pixels.split(pictures_at_once(side)):
        posterior = vae.encode(few.to(device, vae.dtype)).latent_dist
        means.append(posterior.mean.float() - (config.shift_factor or 0))
        spreads.append(posterior.std.float())
    return torch.cat(means) * config.scaling_factor, torch.cat(spreads) * config.scaling_factor


@torch.no_grad()
def decode(vae: Any, latents: Tensor, side: int, device: torch.device) -> Tensor:
    """Pictures (N, 3, H, W), float32 in [-1, 1], of scaled latents; see :func:`encode`."""
    config, pictures = vae.config, []
    for few in latents.split(pictures_at_once(side)):
        scaled = few.to(device, vae.dtype) / config.scaling_factor
        pixels: Tensor = vae.decode(scaled + (config.shift_factor or 0)).sample
        pictures.append(pixels.float().clamp(-1, 1))
    return torch.cat(pictures)
