"""What the base models of all families share: a diffusers pipeline whose parts are frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pti_pipeline import low_rank
from pti_pipeline.families import encoders, files, foreign
from pti_pipeline.families.base import Moved
from pti_pipeline.families.merged import save_merged
from pti_pipeline.families.schedules import Schedule
from pti_pipeline.families.words import check_token, initializer_id
from pti_pipeline.pivot import Pivot, placeholder_tokens


class PipelineModel:
    """A frozen pipeline; see :class:`pti_pipeline.families.base.BaseModel`.

    A family says what a prompt's condition is, what its denoiser is called with, and how attention
    is watched; and which parts of its pipeline are what.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    name : str
    device, dtype
        Of the frozen weights.
    schedule : Schedule
        Noise that the denoiser was trained with.
    """

    denoiser_part = "unet"
    """Name of the denoiser in the pipeline, and so in its LoRA files."""
    encoder_parts: tuple[tuple[str, str], ...] = (("tokenizer", "text_encoder"),)
    """Names of the tokenizers and text encoders that read placeholders."""
    feed_forward: tuple[str, ...] = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
    """Endings of the names of its layers that a LoRA may adapt beside attention."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        schedule: Schedule,
    ) -> None:
        needed = (
            *(part for pair in self.encoder_parts for part in pair),
            self.denoiser_part,
            "vae",
        )
        if missing := [part for part in needed if getattr(pipeline, part) is None]:
            raise ValueError(f"it has no {', '.join(missing)}")
        self.pipeline, self.name, self.device, self.dtype = pipeline, name, device, dtype
        self.schedule, self.timesteps = schedule, schedule.timesteps
        self.scheduler, self.vae = pipeline.scheduler, pipeline.vae
        self.denoiser: Any = getattr(pipeline, self.denoiser_part)
        self.tokenizer = getattr(pipeline, self.encoder_parts[0][0])
        self.text_encoders = tuple(getattr(pipeline, name) for _, name in self.encoder_parts)
        parts = (*self.text_encoders, self.vae, self.denoiser)
        for part in parts:
            part.requires_grad_(False).eval().to(device)
        self.resolution = self.denoiser.config.sample_size * pipeline.vae_scale_factor
        self.fingerprint = fingerprint(parts, schedule)
        if dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.float()  # it overflows

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """Text encoders that read placeholders, by the pipeline's names."""
        names = (name for _, name in self.encoder_parts)
        return dict(zip(names, self.text_encoders, strict=True))

    def check_token(self, token: str) -> None:
        """Raise ``UsageError`` if ``token`` can't be a placeholder token."""
        check_token(self.tokenizer, token)

    def initializer_row(self, word: str) -> Tensor:
        """Embedding of a one-token word, shape (H,), float32; else raise ``UsageError``."""
        row = initializer_id(self.tokenizer, word)
        return torch.cat([encoders.table(e)[row] for e in self.text_encoders]).float()

    def vocabulary(self) -> Tensor:
        """The frozen embedding table, shape (V, H); those of several encoders side by side."""
        tables = [encoders.table(encoder) for encoder in self.text_encoders]
        return tables[0] if len(tables) == 1 else torch.cat(tables, 1)

    def words(self) -> Tensor:
        """Embeddings of the vocabulary's whole words of three letters or more, shape (W, H)."""
        rows = torch.tensor(encoders.words(self.tokenizer), device=self.device)
        return torch.cat([encoders.table(encoder)[rows] for encoder in self.text_encoders], 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of a placeholder's vectors that are each text encoder's."""
        return tuple(encoders.table(encoder).shape[1] for encoder in self.text_encoders)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of the scaled latents of (N, 3, S, S) pictures in [-1, 1]."""
        config = self.vae.config
        posterior = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist
        mean = posterior.mean.float() - (config.shift_factor or 0)
        return mean * config.scaling_factor, posterior.std.float() * config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) in [-1, 1] of scaled latents."""
        config = self.vae.config
        scaled = latents.to(self.device, self.vae.dtype) / config.scaling_factor
        pixels: Tensor = self.vae.decode(scaled + (config.shift_factor or 0)).sample
        return pixels.float().clamp(-1, 1)

    def tokenize(self, prompts: Sequence[str], placeholders: Sequence[str]) -> Tensor:
        """Token ids (P, L); placeholder j has id V + j, and one stands for those of its name."""
        return encoders.tokenize(self.tokenizer, prompts, placeholders).to(self.device)

    def condition(self, ids: Tensor) -> Tensor:
        """What the denoiser is told of prompts."""
        raise NotImplementedError

    def unconditional(self) -> Tensor:
        """What the denoiser is told of no prompt, by each experiment's text encoders."""
        count = low_rank.experiments(self.text_encoders)
        with torch.no_grad():
            rows = self.condition(self.tokenize([""] * count, []))
        return rows[0] if count == 1 else rows[:, None]

    def drawn(self, even: Tensor) -> Tensor:
        """Timesteps as they are drawn in training, of ones drawn evenly."""
        return self.schedule.drawn(even)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents at ``timesteps``."""
        return self.schedule.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict."""
        return self.schedule.target(latents, noise, timesteps)

    def clean(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents that a prediction stands for."""
        return self.schedule.clean(noisy, prediction, timesteps)

    def start_latents(self, seeds: Sequence[int]) -> Tensor:
        """Noise that sampling starts from, one row a seed, equal to diffusers' for that seed."""
        side = self.denoiser.config.sample_size
        shape = (1, self.denoiser.config.in_channels, side, side)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.cat(rows).to(self.device)

    def sampler(self, steps: int) -> Any:
        """A fresh scheduler of the base's own kind, set to ``steps``."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def save_lora(
        self, state: Mapping[str, Tensor], metadata: Mapping[str, Any], folder: Path
    ) -> None:
        """Write a LoRA (peft's names) as the file that ``load_lora_weights`` reads."""
        parts = (self.denoiser_part, *self.encoders)
        files.save_lora(type(self.pipeline), parts, state, metadata, folder)

    def load_lora(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a LoRA file: peft's names, and its rank, alpha and target modules."""
        return files.load_lora((self.denoiser_part, *self.encoders), path)

    def lora_file(self, path: Path) -> AbstractContextManager[Moved]:
        """Attach a LoRA file made elsewhere; see :func:`pti_pipeline.families.foreign.attached`."""
        parts = (self.denoiser_part, *self.encoders)
        return foreign.attached(self.pipeline, parts, path)

    def save_merged(self, pivot: Pivot, path: Path | None, folder: Path) -> None:
        """Write a whole pipeline's folder with a pivot, and a LoRA file of ours, merged into it."""
        tokens = placeholder_tokens(pivot.token, len(pivot.embedding))
        adapter = self.load_lora(path) if path else None
        names = self.encoder_parts
        save_merged(self.pipeline, names, tokens, pivot.embedding, self.denoiser, adapter, folder)


def fingerprint(parts: Sequence[nn.Module], schedule: Schedule) -> str:
    """Digest of all weights, of what the denoiser predicts, and at which levels of noise."""
    digest = sha256(schedule.digest())
    for part in parts:
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
