"""How good the other parts are: the autoencoder, CLIP, and the size and speed of it all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from pti_pipeline import metrics
from pti_pipeline.families.base import BaseModel
from pti_pipeline.features import load_world_clip
from pti_pipeline.losses import denoising_loss
from pti_pipeline.pivot import attached
from pti_pipeline.randomness import numpy_generator
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings
from pti_pipeline.steps.world_check.drawing import (
    as_images,
    captions,
    sample_base,
    silent_prompts,
)
from pti_pipeline.steps.world_check.measure import Measure
from pti_pipeline.world import render, sample_factors
from pti_pipeline.world.meaning import is_true, meaning, values


def round_trip(base: BaseModel, n: int) -> Iterator[Measure]:
    """Mean PSNR of held-out renders after the autoencoder, in dB."""
    factors = sample_factors(n, numpy_generator(0, "check/autoencoder", 0), held_out=True)
    pixels = render(factors)
    with torch.no_grad():
        parts = [base.decode(base.encode_images(p)[0]) for p in as_images(pixels).split(64)]
    back = to_uint8(torch.cat(parts)) / 255
    yield Measure("autoencoder", "PSNR (dB)", metrics.psnr(back, pixels / 255), least=28.0)


@torch.no_grad()
def retrieval(folder: Path, n: int = 400) -> Iterator[Measure]:
    """CLIP's first answer, and first five, to a caption among ``n`` renders.

    A hit is any picture that the caption is true of.
    """
    clip = load_world_clip(folder, torch.device("cpu"))
    factors, said = captions(n)
    ids = clip.tokenizer(said, padding="max_length", truncation=True, return_tensors="pt").input_ids
    output = clip.model(input_ids=ids, pixel_values=as_images(render(factors)))
    closest = output.logits_per_text.argsort(1, descending=True)[:, :5].numpy()
    true = values(factors)
    fits = np.stack([is_true(meaning(text), true) for text in said])
    hits = np.take_along_axis(fits, closest, 1)
    chance = float(fits.mean())
    yield Measure("CLIP", f"R@1 of {n}", float(hits[:, 0].mean()), least=0.5, chance=chance)
    yield Measure("CLIP", f"R@5 of {n}", float(hits.any(1).mean()))


def size(folder: Path) -> Iterator[Measure]:
    """Megabytes of all files."""
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    yield Measure("cost", "size (MB)", total / 1e6, most=25.0)


def speed(base: BaseModel, how: SampleSettings) -> Iterator[Measure]:
    """Seconds to draw a picture at batch 16, and of an inversion's step at batch 4, on one core.

    Counted in the processor's time of one thread, which a busy machine does not stretch. The step
    is the inversion's forward and backward pass; its optimizer's update is nothing beside.
    """
    prompts, threads = silent_prompts(16), torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = [_clock(lambda: list(sample_base(base, prompts, how))) / 16 for _ in range(3)]
    yield Measure("cost", "picture (s)", float(np.median(seconds)), most=0.5)
    latents = base.start_latents(range(4))
    ids = base.tokenize(["a photo of a <new>"] * 4, ["<new>"])
    vectors = base.initializer_row("cat")[None, None].requires_grad_()
    times = torch.full((4,), base.timesteps // 2, device=base.device)

    def step() -> None:
        with attached(base.text_encoders, vectors):
            condition = base.condition(ids)
        denoising_loss(base.predict(latents, times, condition), latents).sum().backward()

    seconds = [_clock(step) for _ in range(12)]
    torch.set_num_threads(threads)
    yield Measure("cost", "inversion step (ms)", 1e3 * float(np.median(seconds)), most=70.0)


def _clock(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
