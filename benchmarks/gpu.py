"""Steps of packs at public models' true shapes, with random weights, on a GPU.

``make bench ONLY=gpu`` fills these rows of Stable Diffusion 1.5 where a GPU is at hand, and
``ONLY=gpu-xl`` those of XL; ``PEERS=<folder>`` adds diffusers' scripts to the first. The tests run
the same code on the CPU, at small shapes.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ours, peers, toy
from benchmarks.modes import MODES, Mode
from benchmarks.timing import Row, clock, ratio
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.families.base import BaseModel
from pti_pipeline.families.drafts import draft

SHAPES = Path(__file__).with_name("shapes")
VOCABULARY = 49408
"""Tokens of CLIP's tokenizers."""
PACKS = {"stable-diffusion-1.5": (1, 4, 8, 16), "stable-diffusion-xl": (1, 2, 4)}
"""Sizes of each model's packs."""
GROUPS = {"gpu": "stable-diffusion-1.5", "gpu-xl": "stable-diffusion-xl"}
"""Of rows: the model of each."""
WARM = 5


def rows(model: str, runs: int) -> Iterator[Row]:
    """Measure every row of one of :data:`PACKS`."""
    build = partial(random_base, SHAPES / model, "cuda")
    yield from packs(model, build, "cuda", runs, PACKS[model], MODES, ceiling("cuda", 8192))


def diffusers_rows(checkouts: Path, runs: int) -> Iterator[Row]:
    """Measure diffusers' scripts at Stable Diffusion 1.5's shapes."""
    with TemporaryDirectory() as name:
        shapes, folder = toy.stable_diffusion_1_5(), Path(name)
        side = shapes.vae["sample_size"]
        model, pictures = toy.build(shapes, folder / "model"), toy.paint(folder / "pictures", side)
        bench = peers.Bench(checkouts, model, pictures, side, "cuda", max(3, runs // 4))
        for stage in ours.STAGES:
            yield from peers.diffusers_rows(bench, stage, {1: (None, None)})


def random_base(folder: Path, device: str, size: int = VOCABULARY) -> BaseModel:
    """Build a model of a folder's configurations, of so many tokens, with random weights."""
    words, precision = toy.tokenizer_of(size), peers.PRECISIONS[device]
    place = torch.device(device)
    return draft(str(folder), precision, device=place, tokenizer=words).base


def packs(
    model: str,
    build: Callable[[], BaseModel],
    device: str,
    runs: int,
    sizes: Sequence[int],
    modes: Mapping[str, Mode],
    ceiling: float,
) -> Iterator[Row]:
    """Measure each stage, pack size and mode against single experiments run eagerly.

    Parameters
    ----------
    model : str
        Its name in the rows.
    build : callable
        Makes it anew.
    modes : mapping of str to callable
        Ways to run its denoiser, see :mod:`benchmarks.modes`.
    ceiling : float
        Matrix FLOP/s that the device reaches; utilisation is held against it.
    """
    for stage in ours.STAGES:
        single: list[float] = []
        for size in sizes:
            for mode, step in timed(build, device, runs, stage, size, modes):
                single = single or step.seconds
                value, spread = ratio([size * s for s in single], step.seconds)
                middle = statistics.median(step.seconds)
                note = f"{middle * 1e3:.1f} ms, {step.memory / 2**30:.1f} GiB, "
                note += f"{step.flops / middle / ceiling:.0%} of {ceiling / 1e12:.0f} TFLOP/s"
                name = f"GPU, {model}: {size} single {stage} steps, eager / one pack of {size}"
                yield Row(f"{name}, {mode}", value, None, None, spread, runs, note=note)


@dataclass(frozen=True)
class Timed:
    """What steps took.

    Attributes
    ----------
    seconds : list of float
        Of each run.
    memory : int
        Most bytes allocated; 0 on the CPU.
    flops : int
        Of a step.
    """

    seconds: list[float]
    memory: int
    flops: int


def timed(
    build: Callable[[], BaseModel],
    device: str,
    runs: int,
    stage: str,
    size: int,
    modes: Mapping[str, Mode],
) -> Iterator[tuple[str, Timed]]:
    """Time one training's steps in each mode."""
    gc.collect()  # what was timed before refers to itself
    base = build()
    with TemporaryDirectory() as name:
        pictures = toy.paint(Path(name) / "pictures", base.resolution)
        material = prepare(base, load_subject(pictures, base.resolution), [ours.TOKEN])
    steps = ours.STAGES[stage](base, material, [1e-4] * size, 1)
    next(steps)  # memory is looked at, in forward passes of other sizes
    with FlopCounterMode(display=False) as counter:
        next(steps)
    for mode, ready in modes.items():
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        with ready(base.denoiser):
            for turn in range(WARM + runs):
                start = clock(device)
                next(steps)
                if turn >= WARM:
                    seconds.append(clock(device) - start)
        memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
        yield mode, Timed(seconds, memory, counter.get_total_flops())


def ceiling(device: str, side: int) -> float:
    """FLOP/s of a large product of bfloat16 matrices, the best of ten."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(10):
        start = clock(device)
        a @ b
        seconds.append(clock(device) - start)
    return 2 * side**3 / min(seconds)
