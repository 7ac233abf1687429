"""The commands that are killed: small trainings of each kind, and what they need to begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from faults.killing import run
from faults.places import forked
from faults.tiny import LEAST, build_base, build_pictures
from pti_pipeline.cli import main
from pti_pipeline.steps.world_training import follow
from pti_pipeline.steps.world_training.loop import Schedule, train
from pti_pipeline.tracking.find import find_runs


@dataclass(frozen=True)
class Job:
    """A command to be killed.

    Attributes
    ----------
    name : str
    command : callable
        Runs it in this process.
    share : int
        How many of a round's cases it gets.
    """

    name: str
    command: Callable[[], object]
    share: int = 1


def usual_jobs(folder: Path) -> tuple[list[Job], Path]:
    """Make a base model, pictures and a pivot; return jobs, and the folder that they begin in."""
    base, (pictures, start) = build_base(folder, "v_prediction", LEAST), _made(folder)
    build_pictures(pictures)
    subject = [f"--images={pictures}", "--token=<c>", "--initializer=cat"]
    usual = [f"--base={base}", "--device=cpu", "--batch-size=2", "--sample-every=70", "--probes=5"]
    code, _ = run(partial(pti, "invert", *subject, *usual, "--steps=10"), start)
    if code:
        raise RuntimeError(f"no pivot: {(start / 'log').read_text()}")
    pivot = forked(start, lambda: find_runs(step="invert")[0].id)
    other = ["--optimizer=prodigy", "--lr=1", "--ema=0.9"]  # it remembers most
    jobs = [
        Job(
            "invert", partial(pti, "invert", *subject, *usual, *other, "--steps=110", "--seed=1"), 3
        ),
        Job("finetune", partial(pti, "finetune", f"--pivot={pivot}", *usual, "--steps=110"), 3),
        Job("sweep", partial(pti, "sweep", *_axes(pivot), *usual, "--steps=110"), 3),
        Job("world", train_world),
    ]
    return jobs, start


def _made(folder: Path) -> tuple[Path, Path]:
    pictures, start = folder / "pictures", folder / "start"
    pictures.mkdir()
    start.mkdir()
    return pictures, start


def _axes(pivot: str) -> list[str]:
    """A sweep of two packs, with a curve on one training and a rate that diverges."""
    return [
        "--stage=finetune",
        f"--pivot={pivot}",
        "--lrs=0.003,10000",
        "--vary=steps:60,110",
        "--regularizer=class-preservation",
        "--reg-bank=4",
    ]


def pti(*words: str) -> None:
    """Be the command ``pti``."""
    main([*words], prog_name="pti")


def train_world() -> None:
    """Train as the embedded world is trained, something small."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int, rows: int) -> torch.Tensor:
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    training = train("small", model, loss, Schedule(40, 8, 1e-2), Path("world"), 5, 0.0)
    follow(training, {"parts": "small"})
