"""What every step asks of a base model, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pti_pipeline.pivot import Pivot


@dataclass(frozen=True)
class Moved:
    """How far a LoRA moves weights, over all layers: Frobenius norms.

    Attributes
    ----------
    delta_norm : float
        Of the merged minus the base weights.
    base_norm : float
        Of the base weights of the same layers.
    """

    delta_norm: float
    base_norm: float


class BaseModel(Protocol):
    """A frozen text-to-image diffusion model."""

    name: str
    """Where it was loaded from, as the user wrote it."""
    fingerprint: str
    """SHA-256 over its weights, in hexadecimal."""
    resolution: int
    """Side of its pictures in pixels."""
    multiple: int
    """What sides of pictures that are no squares must be multiples of, in pixels."""
    longest: int
    """Their longest side."""
    timesteps: int
    """Number of training timesteps."""
    device: torch.device
    dtype: torch.dtype
    text_encoders: tuple[nn.Module, ...]
    """Those that read placeholders."""
    encoders: Mapping[str, nn.Module]
    """The same by the pipeline's names."""
    widths: tuple[int, ...]
    """Of their embeddings; H is the sum."""
    denoiser: nn.Module
    feed_forward: tuple[str, ...]
    """Endings of the names of the denoiser's layers that a LoRA may adapt beside attention."""

    def check_token(self, token: str) -> None:
        """Raise ``UsageError`` if ``token`` can't be a placeholder token."""

    def initializer_row(self, word: str) -> Tensor:
        """Embedding of a one-token word, shape (H,), float32; else raise ``UsageError``.

        Of several text encoders, their embeddings side by side.
        """

    def vocabulary(self) -> Tensor:
        """The frozen embedding table, shape (V, H)."""

    def words(self) -> Tensor:
        """Embeddings of the vocabulary's whole words of three letters or more, shape (W, H)."""

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of the scaled latents of (N, 3, H, W) pictures in [-1, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] of scaled latents."""

    def tokenize(self, prompts: Sequence[str], placeholders: Sequence[str]) -> Tensor:
        """Token ids (P, L); placeholder j has id V + j.

        In a prompt a token stands for those after it too, see :func:`pti_pipeline.pivot.expand`.
        Ids below 0 are for an encoder that reads no placeholders.
        """

    def condition(self, ids: Tensor) -> Tensor:
        """What the denoiser is told of prompts, (P, ...), through whatever embedding is attached.

        Token states (P, L, C); some families put further rows behind the L.
        """

    def unconditional(self) -> Tensor:
        """What the denoiser is told of no prompt: one row of a condition.

        Where text encoders have LoRAs of K experiments it is one row of each, (K, 1, ...).
        """

    def drawn(self, even: Tensor) -> Tensor:
        """Timesteps as the family draws them in training, of integers drawn evenly from 0 to T - 1.

        They need be no integers, but are from 0 to T: larger is noisier.
        """

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents at ``timesteps``."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict: noise or velocity."""

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The denoiser's prediction."""

    def attention(self, reduce: Callable[[Tensor], Tensor]) -> AbstractContextManager[list[Tensor]]:
        """Watch cross-attention for a while; each layer appends ``reduce`` of its probabilities.

        These have shape (rows, heads, pixels, L) and sum to 1 over the L tokens of the prompt.
        """

    def clean(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents that a prediction stands for."""

    def start_latents(self, seeds: Sequence[int], shape: Sequence[int] | None = None) -> Tensor:
        """Noise that sampling starts from, one row a seed, equal to diffusers' for that seed.

        Of the base's own square, or of some rows and columns.
        """

    def sampler(self, steps: int) -> Any:
        """A fresh scheduler of the base's own kind, set to ``steps``."""

    def save_lora(
        self, state: Mapping[str, Tensor], metadata: Mapping[str, Any], folder: Path
    ) -> None:
        """Write a LoRA (peft's names) as the file that ``load_lora_weights`` reads."""

    def load_lora(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a LoRA file: peft's names, and its rank, alpha and target modules."""

    def lora_file(self, path: Path) -> AbstractContextManager[Moved]:
        """Attach a LoRA file made elsewhere, for a while; the base is then as it was."""

    def save_merged(self, pivot: Pivot, path: Path | None, folder: Path) -> None:
        """Write a whole pipeline's folder with a pivot, and a LoRA file of ours, merged into it."""
