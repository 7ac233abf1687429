"""What the base models of all families share: a diffusers pipeline whose parts are frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pti_pipeline import low_rank
from pti_pipeline.families import autoencoder, encoders, few_bits, files, foreign, placing
from pti_pipeline.families.attention import watched
from pti_pipeline.families.base import Moved
from pti_pipeline.families.fingerprint import fingerprint
from pti_pipeline.families.merged import save_merged
from pti_pipeline.families.schedules import Schedule, diffusion
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
    offload : bool
        Let parts come to the device as they are asked for; see :mod:`.placing`.
    bits : int
        Of the denoiser's linear layers; 16 leaves them as they are. The fingerprint is that of the
        weights before.
    """

    denoiser_part = "unet"
    """Name of the denoiser in the pipeline, and so in its LoRA files."""
    encoder_parts: tuple[tuple[str, str], ...] = (("tokenizer", "text_encoder"),)
    """Names of the tokenizers and text encoders that read placeholders."""
    reader_part = ""
    """Name of a text encoder that reads no placeholders."""
    feed_forward: tuple[str, ...] = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
    """Endings of the names of its layers that a LoRA may adapt beside attention."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        offload: bool = False,
        bits: int = 16,
    ) -> None:
        needed = (
            *(part for pair in self.encoder_parts for part in pair),
            self.denoiser_part,
            "vae",
        )
        if missing := [part for part in needed if getattr(pipeline, part) is None]:
            raise ValueError(f"it has no {', '.join(missing)}")
        self.pipeline, self.name, self.device, self.dtype = pipeline, name, device, dtype
        self.schedule = self.schedule_of(pipeline.scheduler)
        self.timesteps = self.schedule.timesteps
        self.scheduler = pipeline.scheduler
        self.tokenizer = getattr(pipeline, self.encoder_parts[0][0])
        readers = tuple(getattr(pipeline, name) for _, name in self.encoder_parts)
        t5 = getattr(pipeline, self.reader_part) if self.reader_part else None
        self._parts: dict[str, tuple[Any, ...]] = {
            placing.DENOISER: (getattr(pipeline, self.denoiser_part),),
            placing.ENCODERS: readers,
            placing.VAE: (pipeline.vae,),
            placing.T5: () if t5 is None else (t5,),
        }
        for part in chain(*self._parts.values()):
            part.requires_grad_(False).eval()
        self.resolution = self._config(placing.DENOISER).sample_size * pipeline.vae_scale_factor
        self.multiple, self.longest = self._shapes(pipeline.vae_scale_factor)
        trained = (*readers, pipeline.vae, getattr(pipeline, self.denoiser_part))
        self.fingerprint = fingerprint(trained, self.schedule)
        if dtype == torch.float16 and pipeline.vae.config.force_upcast:
            pipeline.vae.float()  # it overflows
        if bits < 16:
            few_bits.shrink(getattr(pipeline, self.denoiser_part), bits)
        self._places: placing.Places | None = None
        if offload and device.type != "cpu":
            self._places = placing.waiting(self._parts, device)
        else:
            for part in chain(*self._parts.values()):
                part.to(device)
        self._prepare(pipeline)

    @staticmethod
    def schedule_of(scheduler: Any) -> Schedule:
        """Noise that the denoiser was trained with."""
        return diffusion(scheduler)

    def _prepare(self, pipeline: Any) -> None:
        """Whatever else a family has to know of its pipeline."""

    @property
    def denoiser(self) -> Any:
        """On the device."""
        return self._here(placing.DENOISER)[0]

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        """On the device."""
        return self._here(placing.ENCODERS)

    @property
    def vae(self) -> Any:
        """On the device."""
        return self._here(placing.VAE)[0]

    def _here(self, part: str) -> tuple[Any, ...]:
        if self._places is not None:
            placing.bring(self._places, part)
        return self._parts[part]

    def _config(self, part: str) -> Any:
        return self._parts[part][0].config

    def _tables(self) -> list[Tensor]:
        """Embedding tables of the text encoders, on the device."""
        return [encoders.table(e).to(self.device) for e in self._parts[placing.ENCODERS]]

    def _names(self) -> tuple[str, ...]:
        """The pipeline's names of what can have a LoRA: the denoiser, and text encoders."""
        return (self.denoiser_part, *(name for _, name in self.encoder_parts))

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
        return torch.cat([table[row] for table in self._tables()]).float()

    def vocabulary(self) -> Tensor:
        """The frozen embedding table, shape (V, H); those of several encoders side by side."""
        tables = self._tables()
        return tables[0] if len(tables) == 1 else torch.cat(tables, 1)

    def words(self) -> Tensor:
        """Embeddings of the vocabulary's whole words of three letters or more, shape (W, H)."""
        rows = torch.tensor(encoders.words(self.tokenizer), device=self.device)
        return torch.cat([table[rows] for table in self._tables()], 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of a placeholder's vectors that are each text encoder's."""
        return tuple(encoders.table(each).shape[1] for each in self._parts[placing.ENCODERS])

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of the scaled latents of (N, 3, H, W) pictures in [-1, 1]."""
        return autoencoder.encode(self.vae, pixels, self.resolution, self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] of scaled latents."""
        return autoencoder.decode(self.vae, latents, self.resolution, self.device)

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

    def attention(self, reduce: Callable[[Tensor], Tensor]) -> AbstractContextManager[list[Tensor]]:
        """Watch cross-attention; see :func:`pti_pipeline.families.attention.watched`."""
        return watched(self.denoiser, reduce)

    def _shapes(self, scale: int) -> tuple[int, int]:
        """Give :attr:`multiple` and :attr:`longest`, in pixels: of a UNet, what it halves."""
        halved = 2 ** (len(self._config(placing.DENOISER).block_out_channels) - 1)
        return scale * halved, 2 * self.resolution

    def start_latents(self, seeds: Sequence[int], shape: Sequence[int] | None = None) -> Tensor:
        """Noise that sampling starts from, one row a seed, equal to diffusers' for that seed."""
        config = self._config(placing.DENOISER)
        size = (1, config.in_channels, *(shape or [config.sample_size] * 2))
        rows = [torch.randn(size, generator=torch.Generator().manual_seed(s)) for s in seeds]
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
        files.save_lora(type(self.pipeline), self._names(), state, metadata, folder)

    def load_lora(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a LoRA file: peft's names, and its rank, alpha and target modules."""
        return files.load_lora(self._names(), path)

    def lora_file(self, path: Path) -> AbstractContextManager[Moved]:
        """Attach a LoRA file made elsewhere; see :func:`pti_pipeline.families.foreign.attached`."""
        with torch.enable_grad():
            _ = self.text_encoders, self.denoiser  # its layers go where they are
        return foreign.attached(self.pipeline, self._names(), path)

    def save_merged(self, pivot: Pivot, path: Path | None, folder: Path) -> None:
        """Write a whole pipeline's folder with a pivot, and a LoRA file of ours, merged into it."""
        tokens = placeholder_tokens(pivot.token, len(pivot.embedding))
        adapter = self.load_lora(path) if path else None
        names = self.encoder_parts
        save_merged(self.pipeline, names, tokens, pivot.embedding, self.denoiser, adapter, folder)
