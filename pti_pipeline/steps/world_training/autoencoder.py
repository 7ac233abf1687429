"""The autoencoder: 48 px pictures to 12 x 12 latents of zero mean and unit spread."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from pti_pipeline.randomness import generator
from pti_pipeline.steps.world_training.corpus import Corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, rank, train
from pti_pipeline.steps.world_training.text_tower import draw_weights

CHANNELS = 8
SCHEDULE = Schedule(steps=3200, batch=16, lr=2e-3, decay=0.998)
KL_WEIGHT = 1e-6


def new_autoencoder(size: int, seed: int) -> AutoencoderKL:
    """Build an untrained autoencoder that shrinks each side by four."""
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=size,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    draw_weights(model, seed, "autoencoder")
    return model


def train_autoencoder(
    corpus: Corpus, folder: Path, schedule: Schedule = SCHEDULE
) -> Iterator[Progress]:
    """Train on absolute and squared error with a slight KL term; save as ``folder/vae``."""
    model = new_autoencoder(corpus.images.shape[-1], corpus.seed)

    def loss(step: int, count: int) -> Tensor:
        stream = f"autoencoder/{rank()}"
        pixels = corpus.pixels(corpus.rows(stream, step, count))
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator(corpus.seed, stream, step))
        output = model.decode(posterior.mean + posterior.std * noise).sample
        error = F.l1_loss(output, pixels) + F.mse_loss(output, pixels)
        return error + KL_WEIGHT * posterior.kl().mean()

    yield from train("autoencoder", model, loss, schedule, folder)
    if rank() == 0:
        whiten(model, corpus)
        model.save_pretrained(folder / "vae")


@torch.no_grad()
def whiten(model: AutoencoderKL, corpus: Corpus, count: int = 512) -> None:
    """Fold each latent channel's mean and spread into the 1x1 convolutions at the bottleneck.

    Exact up to rounding: the decoder sees what it saw, and ``scaling_factor`` stays 1. A channel
    whose posterior is wider than the data, which the decoder has learned to ignore, is silenced
    instead: it would be noise of many times the others' size.
    """
    pixels = corpus.pixels(corpus.rows("whiten", 0, count))
    posteriors = [model.encode(part).latent_dist for part in pixels.split(64)]
    latents = torch.cat([p.mean for p in posteriors])
    width = torch.cat([p.std for p in posteriors]).mean((0, 2, 3))
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = model.quant_conv, model.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= spread[None, :, None, None]
    into.weight[:CHANNELS] /= spread[:, None, None, None]
    into.bias[:CHANNELS] = (into.bias[:CHANNELS] - mean) / spread
    into.bias[CHANNELS:] -= 2 * spread.log()
    ignored = torch.nonzero(width > spread).flatten()
    out.weight[:, ignored] = 0.0
    into.weight[ignored], into.bias[ignored] = 0.0, 0.0
    into.weight[CHANNELS + ignored], into.bias[CHANNELS + ignored] = 0.0, math.log(1e-4)
