"""Reconstruction on a fixed bank of noised training pictures; it needs no samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import metrics
from pti_pipeline.characters import PLAIN, Characters, encode
from pti_pipeline.data import Subject
from pti_pipeline.families.base import BaseModel
from pti_pipeline.losses import denoising_loss
from pti_pipeline.metrics import Masks
from pti_pipeline.randomness import generator
from pti_pipeline.sampling import to_uint8

BANK_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
CLEAN_TIMES = (0.25, 0.5, 0.75)


def on_bank(
    base: BaseModel, who: Characters, subject: Subject, masks: Masks
) -> list[dict[str, float]]:
    """Loss, SSIM and PSNR on a fixed bank of noised training pictures, for each character.

    The clean picture predicted at a quarter, half and three quarters of the noise is held
    against the autoencoder's own round trip: the whole picture, and the subject alone where one
    of the ``masks`` (N, S, S) is not empty.
    """
    latents, _ = base.encode_images(subject.images)
    target = base.decode(latents)
    losses, pictures = [], []
    for index, share in enumerate(sorted({*BANK_TIMES, *CLEAN_TIMES})):
        noise = torch.randn(latents.shape, generator=generator(0, "bank", index)).to(base.device)
        answers = _answers(base, who, latents, noise, int(share * base.timesteps))
        if share in BANK_TIMES:
            losses.append(answers[0])
        if share in CLEAN_TIMES:
            pictures.append(answers[1])
    bank = torch.stack(losses).mean(0)
    reference = _unit(target)
    rows = []
    for k, loss in enumerate(bank):
        row = {"reconstruction/bank_loss": float(loss)}
        drawn = [_unit(base.decode(clean[k])) for clean in pictures]
        for name, where in (("", None), ("_masked", masks)):
            for metric in (metrics.ssim, metrics.psnr):
                value = float(np.mean([metric(d, reference, where) for d in drawn]))
                if not np.isnan(value):
                    row[f"reconstruction/{metric.__name__}{name}"] = value
        rows.append(row)
    return rows


@torch.no_grad()
def _answers(
    base: BaseModel, who: Characters, latents: Tensor, noise: Tensor, time: int
) -> tuple[Tensor, Tensor]:
    """Losses (K,) and predicted clean latents (K, N, ...) at one timestep."""
    states = encode(base, who, [PLAIN])
    experiments, n = len(states), len(latents)
    times = torch.full((n,), time, device=base.device)
    noisy, target = base.add_noise(latents, noise, times), base.target(latents, noise, times)
    repeat = (experiments, 1, 1, 1)
    rows = states.expand(-1, n, -1, -1).flatten(0, 1)
    prediction = base.predict(noisy.repeat(repeat), times.repeat(experiments), rows)
    loss = denoising_loss(prediction, target.repeat(repeat)).unflatten(0, (experiments, n)).mean(1)
    clean = base.clean(noisy.repeat(repeat), prediction, times.repeat(experiments))
    return loss, clean.unflatten(0, (experiments, n))


def _unit(images: Tensor) -> NDArray[np.floating]:
    return to_uint8(images).astype(np.float64) / 255
