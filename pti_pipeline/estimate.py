"""What a study will cost, told before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from pti_pipeline.families.base import BaseModel
from pti_pipeline.probes import QUARTERS
from pti_pipeline.settings import SampleSettings

BACKWARD = 2.0
"""Price of a training row's backward pass, in forwards: activations' and weights' gradients."""
KINDS = 5
"""Kinds of pictures that a probe reads: the training's and four of twins."""
ROWS, TRIALS = 4, 3
"""Rows of one trial forward, and how many are timed."""


@dataclass(frozen=True)
class Work:
    """Trainings, and pictures drawn of them.

    Attributes
    ----------
    trainings, steps, batch_size : int
    regularized : int
        Of the trainings, how many have as many rows again beside their own.
    pictures : int
        Of the training folder.
    probes : int
        Of each training.
    measured : int
        Characters that are sampled: runs, pivots and the class word.
    samples : int
        Of each of these, of all prompts.
    shown : int
        Of sample grids.
    """

    trainings: int
    regularized: int
    steps: int
    batch_size: int
    pictures: int
    probes: int
    measured: int
    samples: int
    shown: int

    @property
    def images(self) -> int:
        """Pictures that are drawn."""
        return self.measured * self.samples + self.shown

    def forwards(self, how: SampleSettings) -> float:
        """Rows of the denoiser's forward pass, and what is worth as much."""
        rows = (self.trainings + self.regularized) * self.batch_size
        trained = rows * self.steps * (1 + BACKWARD)
        probed = self.trainings * self.probes * self.pictures * KINDS * len(QUARTERS)
        return trained + probed + self.images * how.steps * 2  # with and without the prompt


@torch.no_grad()
def seconds_a_row(base: BaseModel) -> float:
    """Time of one row of the denoiser's forward pass, by a few trials on one thread or GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as packs have
    latents = base.start_latents(range(ROWS))
    timesteps = torch.full((ROWS,), base.timesteps // 2, device=base.device)
    condition = base.condition(base.tokenize([""] * ROWS, []))
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        base.predict(latents, timesteps, condition).sum().item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return min(times) / ROWS


def estimate(work: Work, row: float, how: SampleSettings, workers: int) -> str:
    """Say what some work costs, in pictures and minutes.

    Parameters
    ----------
    work : Work
    row : float
        Of :func:`seconds_a_row`.
    how : SampleSettings
    workers : int
        Processes at once.

    Examples
    --------
    >>> work = Work(8, 0, 1000, 4, 6, 20, 11, 136, 384)
    >>> estimate(work, 0.003, SampleSettings(), 2)
    '8 trainings of 1000 steps and 1,880 pictures: about 5 minutes'
    """
    minutes = work.forwards(how) * row / workers / 60
    told = "under a minute" if minutes < 1 else f"about {minutes:.0f} minute{'s'[: minutes >= 1.5]}"
    return f"{work.trainings} trainings of {work.steps} steps and {work.images:,} pictures: {told}"
