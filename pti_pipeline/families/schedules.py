"""How families mix latents with noise, what they predict of it, and at which noise they learn.

Latents have shape (n, C, h, w) and timesteps (n,): what the denoiser is told, from 0 to T, noisier
where they are larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Diffusion:
    """Noise by the cumulative alphas (Ho et al. 2020, eq. 4), drawn evenly.

    Attributes
    ----------
    alphas : Tensor, shape (T,)
        Cumulative: the signal's share of the variance.
    velocity : bool
        Whether the denoiser predicts the velocity (Salimans & Ho 2022), or else the noise.
    """

    alphas: Tensor
    velocity: bool

    @property
    def timesteps(self) -> int:
        """Number of training timesteps, T."""
        return len(self.alphas)

    def drawn(self, even: Tensor) -> Tensor:
        """Timesteps as they are drawn in training, of integers drawn evenly from 0 to T - 1."""
        return even

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents."""
        signal, spread = self._levels(timesteps, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict."""
        if not self.velocity:
            return noise
        signal, spread = self._levels(timesteps, latents)
        return signal * noise - spread * latents

    def clean(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents that a prediction stands for."""
        signal, spread = self._levels(timesteps, noisy)
        if self.velocity:
            return signal * noisy - spread * prediction
        return (noisy - spread * prediction) / signal

    def digest(self) -> bytes:
        """Bytes that tell this schedule from others."""
        kind = "v_prediction" if self.velocity else "epsilon"
        return kind.encode() + self.alphas.cpu().float().numpy().tobytes()

    def _levels(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas.to(timesteps.device, like.dtype)[timesteps]
        return _columns(alphas.sqrt()), _columns((1 - alphas).sqrt())


@dataclass(frozen=True)
class Flow:
    r"""Straight paths from latents to noise (Liu et al. 2023), and what they are learnt at.

    On them :math:`x_t = (1 - t) x + t \epsilon`. The denoiser predicts the velocity
    :math:`\epsilon - x` and is told :math:`T t`. In training t is logit-normal, and then shifted
    towards noise (Esser et al. 2024, eq. 19 and 23).

    Attributes
    ----------
    timesteps : int
        T.
    shift : float
        1 is none.
    """

    timesteps: int
    shift: float

    def drawn(self, even: Tensor) -> Tensor:
        """Timesteps as they are drawn in training, of integers drawn evenly from 0 to T - 1."""
        quantile = (even.double() + 0.5) / self.timesteps
        time = (math.sqrt(2) * torch.erfinv(2 * quantile - 1)).sigmoid()
        shifted = self.shift * time / (1 + (self.shift - 1) * time)
        return (shifted * self.timesteps).float()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents."""
        time = self._time(timesteps, latents)
        return (1 - time) * latents + time * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict."""
        return noise - latents

    def clean(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents that a prediction stands for."""
        return noisy - self._time(timesteps, noisy) * prediction

    def digest(self) -> bytes:
        """Bytes that tell this schedule from others."""
        return f"flow {self.timesteps} {self.shift}".encode()

    def _time(self, timesteps: Tensor, like: Tensor) -> Tensor:
        return _columns(timesteps.to(like.dtype) / self.timesteps)


Schedule = Diffusion | Flow


def diffusion(scheduler: Any) -> Diffusion:
    """Noise of a base model that diffusers loaded; raise ``ValueError`` if it predicts the rest."""
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"its denoiser predicts '{kind}'")
    return Diffusion(scheduler.alphas_cumprod, kind == "v_prediction")


def _columns(values: Tensor) -> Tensor:
    return values[:, None, None, None]
