"""The denoiser: predicts velocity from noisy latents and the caption's token states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from pti_pipeline.randomness import generator
from pti_pipeline.steps.world_training.autoencoder import CHANNELS
from pti_pipeline.steps.world_training.corpus import Corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, rank, train
from pti_pipeline.steps.world_training.text_tower import WIDTH, draw_weights, encode_text

SCHEDULE = Schedule(steps=8600, batch=64, lr=1.2e-3, flat=0.7, decay=0.999)
UNCONDITIONAL = 0.1
"""Share of the captions left empty, for classifier-free guidance (Ho & Salimans 2022)."""


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with velocity as the target (Salimans & Ho 2022)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def new_denoiser(size: int, seed: int) -> UNet2DConditionModel:
    """Build an untrained UNet over latents of side ``size``; its finest level has no attention."""
    model = UNet2DConditionModel(
        sample_size=size,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(48, 64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
    )
    draw_weights(model, seed, "denoiser")
    return model


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
    return load_file(path)["latents"]


def train_denoiser(
    tokenizer: CLIPTokenizer, corpus: Corpus, folder: Path, schedule: Schedule = SCHEDULE
) -> Iterator[Progress]:
    """Train on captioned latents, text tower and autoencoder frozen; save as ``folder/unet``."""
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval().requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval().requires_grad_(False)
    latents = cache_latents(vae, corpus, folder)
    scheduler = new_scheduler()
    model = new_denoiser(latents.shape[-1], corpus.seed)
    end = scheduler.config.num_train_timesteps

    def loss(step: int, count: int) -> Tensor:
        stream = f"denoiser/{rank()}"
        rows = corpus.rows(stream, step, count)
        draws = generator(corpus.seed, f"noise/{rank()}", step)
        noise = torch.randn((count, *latents.shape[1:]), generator=draws)
        timesteps = torch.randint(end, (count,), generator=draws)
        kept = torch.rand(count, generator=draws) >= UNCONDITIONAL
        captions = corpus.captions(rows, stream, step)
        ids = encode_text(tokenizer, [c if k else "" for c, k in zip(captions, kept, strict=True)])
        clean = latents[rows].float()
        noisy = scheduler.add_noise(clean, noise, timesteps)
        target = scheduler.get_velocity(clean, noise, timesteps)
        with torch.no_grad():
            condition = text(input_ids=ids).last_hidden_state
        return F.mse_loss(model(noisy, timesteps, condition).sample, target)

    yield from train("denoiser", model, loss, schedule, folder)
    if rank() == 0:
        model.save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
