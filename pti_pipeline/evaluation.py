"""What is measured of K characters on one base: reconstruction, editability, leak and diversity."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import leak, metrics
from pti_pipeline.characters import Characters, encode
from pti_pipeline.data import Subject
from pti_pipeline.families.base import BaseModel
from pti_pipeline.losses import denoising_loss
from pti_pipeline.randomness import generator, numpy_generator
from pti_pipeline.sampling import to_uint8
from pti_pipeline.world import factors as f
from pti_pipeline.world.captions import COLUMN_WORDS, SCENE_WORDS
from pti_pipeline.world.reader import Reader

PLAIN = "a photo of {}"
"""Prompt that says nothing of position or scene: the base model must draw random ones."""

IDENTITY = ("species", "color", "belly", "hat", "hat_color", "emblem", "eyes")
BANK_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
CLEAN_TIMES = (0.25, 0.5, 0.75)
EDITS = (
    *((f"{{}} {words}", "column", f.COLUMNS.index(name)) for name, words in COLUMN_WORDS.items()),
    *((f"{{}} {SCENE_WORDS[name][0]}", "scene", f.SCENES.index(name)) for name in f.SCENES),
    ("{} arms up", "arms", 1),
    ("{} arms down", "arms", 0),
)
"""Edit prompts: template, factor that the reader checks, and the value asked for."""


def reconstruction(base: BaseModel, who: Characters, subject: Subject) -> list[dict[str, float]]:
    """Loss, SSIM and PSNR on a fixed bank of noised training pictures, for each character.

    The clean picture predicted at a quarter, half and three quarters of the noise is held
    against the autoencoder's own round trip.
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
        drawn = [_unit(base.decode(clean[k])) for clean in pictures]
        rows.append(
            {
                "reconstruction/bank_loss": float(loss),
                "reconstruction/ssim": float(np.mean([metrics.ssim(d, reference) for d in drawn])),
                "reconstruction/psnr": float(np.mean([metrics.psnr(d, reference) for d in drawn])),
            }
        )
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


def obedience(read: dict[str, Tensor], seeds: int) -> float:
    """Share of the samples of :data:`EDITS`, ``seeds`` each, that show what was asked."""
    right = [
        (read[factor][i * seeds : (i + 1) * seeds] == value).float()
        for i, (_, factor, value) in enumerate(EDITS)
    ]
    return float(torch.cat(right).mean())


def appearance(read: dict[str, Tensor], training: dict[str, Tensor]) -> float:
    """Mean share of samples that agree with the training pictures in a factor of identity.

    0 to 1, higher is better. The truth is what the reader sees most often in the training set.
    """
    shares = [(read[k] == training[k].mode().values).float().mean() for k in IDENTITY]
    return float(torch.stack(shares).mean())


def layouts(read: dict[str, Tensor]) -> NDArray[np.floating]:
    """Where the characters stand: x and y, shape (n, 2)."""
    return torch.stack([read["x"], read["y"]], 1).double().numpy()


def leaks(
    samples: NDArray[np.floating],
    references: dict[str, NDArray[np.floating]],
    training: NDArray[np.floating],
) -> dict[str, float]:
    """Leak against each reference, and the diversity of positions against the first."""
    values: dict[str, float] = {}
    scale = next(iter(references.values()))
    near = leak.nearest(leak.whiten(samples, scale), leak.whiten(training, scale))
    for name, other in references.items():
        far = leak.nearest(leak.whiten(other, scale), leak.whiten(training, scale))
        low, high = leak.auc_interval(near, far, numpy_generator(0, "bootstrap", 0))
        values[f"leak/{name}_auc"] = leak.auc(near, far)
        values[f"leak/{name}_auc_low"], values[f"leak/{name}_auc_high"] = low, high
        values[f"leak/{name}_p"] = leak.p_value(near, far)
    values["diversity/positions"] = metrics.position_diversity(samples, scale)
    return values


def read_all(reader: Reader, images: Tensor) -> list[dict[str, Tensor]]:
    """Read (K, n, 3, S, S) pictures: factors of each character's samples."""
    return [reader.read(part.cpu()) for part in images]


def _unit(images: Tensor) -> NDArray[np.floating]:
    return to_uint8(images).astype(np.float64) / 255
