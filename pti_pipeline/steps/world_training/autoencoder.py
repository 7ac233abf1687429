"""The autoencoder: 48 px pictures to 12 x 12 latents of zero mean and unit spread."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from pti_pipeline.randomness import generator, initialised_from
from pti_pipeline.steps.world_training.corpus import Corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, device, rank, train
from pti_pipeline.steps.world_training.saved import load_part, load_tensor

CHANNELS = 8
DECODER_SCHEDULE = Schedule(steps=3000, batch=32, lr=1e-3, flat=0.3, decay=0.998)
SCHEDULE = Schedule(steps=5600, batch=32, lr=2e-3, flat=0.5, decay=0.998)
KL_WEIGHT = 1e-7
"""Ten times more silenced two of the eight channels."""
NOISE = 0.05
"""Spread of the noise on latents of unit spread: samples are never quite where renders are."""
SQUARED = 5.0
"""Weight of the squared error beside the absolute one, which is about five times as large."""


def new_autoencoder(size: int) -> AutoencoderKL:
    """Build an untrained autoencoder that shrinks each side by four."""
    return AutoencoderKL(
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


def train_autoencoder(
    corpus: Corpus, folder: Path, schedule: Schedule = SCHEDULE
) -> Iterator[Progress]:
    """Train on absolute and squared error with a slight KL term; save as ``folder/vae``."""
    with initialised_from(corpus.seed, "autoencoder"):
        model = new_autoencoder(corpus.images.shape[-1])

    def loss(step: int, count: int) -> Tensor:
        stream = f"autoencoder/{rank()}"
        pixels = corpus.pixels(corpus.rows(stream, step, count)).to(device())
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator(corpus.seed, stream, step))
        output = model.decode(posterior.mean + posterior.std * noise.to(device())).sample
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


def cache_latents(vae: AutoencoderKL, corpus: Corpus, folder: Path) -> Tensor:
    """Encode the corpus once; shape (n, channels, S/4, S/4), float16 on disk and in memory."""
    path = folder / "latents.safetensors"
    if not path.is_file() and rank() == 0:
        rows = torch.arange(len(corpus.images))
        with torch.no_grad():
            parts = [vae.encode(corpus.pixels(r)).latent_dist.mean.half() for r in rows.split(128)]
        save_file({"latents": torch.cat(parts)}, path)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return load_tensor(path, "latents")


def train_decoder(
    corpus: Corpus, folder: Path, schedule: Schedule = DECODER_SCHEDULE
) -> Iterator[Progress]:
    """Train the decoder of ``folder/vae`` further, on slightly noisy latents; save it there.

    The encoder stays, and so do the latents that a denoiser has learned from; a step costs half of
    the whole autoencoder's.
    """
    model = load_part(AutoencoderKL, folder / "vae").requires_grad_(False)
    model.decoder.requires_grad_(True)
    model.post_quant_conv.requires_grad_(True)
    latents = cache_latents(model, corpus, folder)

    def loss(step: int, count: int) -> Tensor:
        stream = f"decoder/{rank()}"
        rows = corpus.rows(stream, step, count)
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator(corpus.seed, stream, step))
        output = model.decode((clean + NOISE * noise).to(device())).sample
        pixels = corpus.pixels(rows).to(device())
        return F.l1_loss(output, pixels) + SQUARED * F.mse_loss(output, pixels)

    yield from train("decoder", model, loss, schedule, folder)
    if rank() == 0:
        model.save_pretrained(folder / "vae")
