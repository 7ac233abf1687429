"""The denoiser: predicts velocity from noisy latents and the caption's token states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from pti_pipeline.randomness import generator, initialised_from
from pti_pipeline.steps.world_training.autoencoder import CHANNELS, cache_latents
from pti_pipeline.steps.world_training.corpus import Corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, device, rank, train
from pti_pipeline.steps.world_training.saved import load_part
from pti_pipeline.steps.world_training.text_tower import WIDTH, encode_text
from pti_pipeline.world.reader import CLASSES, class_targets

SCHEDULE = Schedule(steps=25_000, batch=96, lr=1.2e-3, flat=0.7, decay=0.999)
UNCONDITIONAL = 0.1
"""Share of the captions left empty, for classifier-free guidance (Ho & Salimans 2022)."""
SUBJECT_WEIGHT = 5.0
"""Weight of the character's pixels beside the scene's."""
READING_WEIGHT = 0.1
"""Weight of reading the factors beside predicting the velocity."""


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


def new_denoiser(size: int) -> UNet2DConditionModel:
    """Build an untrained UNet over latents of side ``size``; its finest level has no attention."""
    return UNet2DConditionModel(
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


class DenoiserThatReads(nn.Module):
    """The UNet with linear heads that read the picture's factors in its middle block.

    Aligning a denoiser's inner states with what the clean picture shows makes it learn many times
    faster (Yu et al. 2025, "Representation alignment for generation"); here the factors are known,
    so they take the place of a pretrained encoder. The heads are thrown away after training.
    """

    def __init__(self, unet: UNet2DConditionModel, size: int) -> None:
        super().__init__()
        self.unet = unet
        side = size // 2 ** (len(unet.config.block_out_channels) - 1)
        features = unet.config.block_out_channels[-1] * side**2
        self.heads = nn.ModuleDict({k: nn.Linear(features, n) for k, n in CLASSES.items()})
        unet.mid_block.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: object, output: Tensor) -> None:
        self.middle = output.flatten(1)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, condition: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predicted velocity, and logits by factor, each of shape (n, classes)."""
        velocity = self.unet(noisy, timesteps, condition).sample
        return velocity, {name: head(self.middle) for name, head in self.heads.items()}


def weigh(masks: Tensor, side: int) -> Tensor:
    """Weight of each latent's error, mean 1 over the masks; shape (n, 1, side, side).

    The least-squares answer at each pixel stays what it is; a small network spends more of itself
    on the character, less on clouds and trees.
    """
    share = F.adaptive_avg_pool2d(masks[:, None].float(), side)
    weight = 1 + (SUBJECT_WEIGHT - 1) * share
    return weight / weight.mean()


def draw_timesteps(end: int, count: int, draws: torch.Generator) -> Tensor:
    """Draw timesteps in [0, end), int64: half of them uniform, half logit-normal.

    The latter (Esser et al. 2024, section 3.1) favors the middle, where what a caption names is
    decided; the former keeps the ends, where a picture's layout begins and its edges get sharp.
    """
    even = torch.rand(count, generator=draws)
    middle = torch.randn(count, generator=draws).sigmoid()
    where = torch.rand(count, generator=draws) < 0.5
    return (torch.where(where, even, middle) * end).long().clamp(max=end - 1)


def train_denoiser(
    tokenizer: CLIPTokenizer, corpus: Corpus, folder: Path, schedule: Schedule = SCHEDULE
) -> Iterator[Progress]:
    """Train on captioned latents, text tower and autoencoder frozen; save as ``folder/unet``."""
    text = load_part(CLIPTextModel, folder / "text_encoder").eval().requires_grad_(False)
    text.to(device())
    vae = load_part(AutoencoderKL, folder / "vae").eval().requires_grad_(False)
    latents = cache_latents(vae, corpus, folder)
    scheduler = new_scheduler()
    with initialised_from(corpus.seed, "denoiser"):
        unet = new_denoiser(latents.shape[-1])
        model = DenoiserThatReads(unet, latents.shape[-1])
    targets = class_targets(corpus.factors)
    end = scheduler.config.num_train_timesteps

    def loss(step: int, count: int) -> Tensor:
        stream = f"denoiser/{rank()}"
        rows = corpus.rows(stream, step, count)
        draws = generator(corpus.seed, f"noise/{rank()}", step)
        noise = torch.randn((count, *latents.shape[1:]), generator=draws)
        timesteps = draw_timesteps(end, count, draws)
        kept = torch.rand(count, generator=draws) >= UNCONDITIONAL
        captions = corpus.captions(rows, stream, step)
        ids = encode_text(tokenizer, [c if k else "" for c, k in zip(captions, kept, strict=True)])
        clean = latents[rows].float()
        noisy = scheduler.add_noise(clean, noise, timesteps).to(device())
        target = scheduler.get_velocity(clean, noise, timesteps).to(device())
        with torch.no_grad():
            condition = text(input_ids=ids.to(device())).last_hidden_state
        velocity, read = model(noisy, timesteps.to(device()), condition)
        weight = weigh(corpus.masks[rows], latents.shape[-1]).to(device())
        error = (weight * (velocity - target).square()).mean()
        losses = [F.cross_entropy(read[k], targets[k][rows].to(device())) for k in CLASSES]
        return error + READING_WEIGHT * torch.stack(losses).mean()

    yield from train("denoiser", model, loss, schedule, folder)
    if rank() == 0:
        unet.save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
