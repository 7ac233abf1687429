"""Trains the embedded world's models, part by part, each resumable: ``pti world train``.

Run under ``torchrun --nproc-per-node N -m pti_pipeline world train`` to share each update's
samples among N processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch.distributed as dist
from filelock import FileLock, Timeout

from pti_pipeline.errors import LockedError, UsageError
from pti_pipeline.progress import tqdm
from pti_pipeline.steps.attempts import attempt
from pti_pipeline.steps.world_training import (
    autoencoder,
    denoiser,
    reader,
    text_tower,
    vision_tower,
)
from pti_pipeline.steps.world_training.corpus import build_corpus, load_corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, rank
from pti_pipeline.steps.world_training.saved import load_tokenizer
from pti_pipeline.steps.world_training.tokenizer import build_tokenizer
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.world import WORDS

PARTS = ("text_tower", "autoencoder", "decoder", "reader", "denoiser", "vision_tower")
"""In an order in which each part finds what it needs."""

SIZE = 48
IMAGES = 64_000


def check_parts(parts: Sequence[str]) -> Sequence[str]:
    """Return ``parts``; raise ``UsageError`` if one is unknown."""
    for part in parts:
        if part not in PARTS:
            raise UsageError("E206", f"no part '{part}'", f"choose from {', '.join(PARTS)}")
    return parts


def follow_training(folder: Path, parts: Sequence[str], seed: int, updates: int) -> None:
    """Train as :func:`train_world` does, with a progress bar, in a run of its own.

    Of several processes under ``torchrun`` only the first shows and logs.
    """
    training = train_world(folder, parts, seed, updates=updates)
    if int(os.environ.get("RANK", "0")):
        for _ in training:
            pass
    else:
        params = {"parts": ",".join(parts), "seed": seed, "updates": updates}
        with _alone_in(folder):
            follow(training, {**params, "folder": str(folder.resolve())})


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second training out of a folder, whatever it trains.

    Raises
    ------
    LockedError
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        what = f"another process trains in '{folder}'"
        raise LockedError("E701", what, "wait for its end, or train in another --folder") from None
    try:
        yield
    finally:
        lock.release()


def follow(training: Iterable[Progress], params: dict[str, object]) -> None:
    """Show each part's progress and log its loss and rate by update, as ``<part>/loss``.

    A training that goes on has the run that was interrupted.
    """
    found = attempt([{"step": "world-train", **params}])
    tags = {"pti.step": "world-train", **found.tags[0]}
    with open_run("train the world", params, tags, earlier=found.earlier[0]) as run:
        found.release()
        for part, moments in groupby(training, lambda p: p.part):
            with tqdm(desc=part, mininterval=2) as bar:
                for p in moments:
                    bar.total, bar.n = p.steps, p.step
                    bar.set_postfix(loss=f"{p.loss:.4f}", per_second=f"{p.rate:.0f}")
                    metrics = {f"{part}/loss": p.loss, f"{part}/samples_per_second": p.rate}
                    run.log_metrics(metrics, p.step)
                    run.sync()  # before the state is saved: it is not told again


def train_world(
    folder: Path,
    parts: Sequence[str] = PARTS,
    seed: int = 0,
    images: int = IMAGES,
    updates: int = 0,
) -> Iterator[Progress]:
    """Train ``parts`` of the world into ``folder``, going on from the state found there.

    Parameters
    ----------
    folder : Path
        Training state, and the finished parts in diffusers' own layout.
    parts : sequence of str
        Of :data:`PARTS`.
    seed : int
        Of the corpus, the initial weights and every draw.
    images : int
        Size of the corpus, and of the one with held-out traits that the reader learns from.
    updates : int
        Of each part, its learning rate's course fitted to them; 0 takes the part's own number.

    Yields
    ------
    Progress

    Raises
    ------
    UsageError
        If a part is unknown.
    """
    check_parts(parts)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    sizes = {"corpus": images, "held_out": images}
    if rank() == 0:
        for name, count in sizes.items():
            for done in build_corpus(folder, name, count, SIZE, seed, held_out=name == "held_out"):
                yield Progress(name, done, count, 0.0, 0.0)
        build_tokenizer(WORDS, folder / "tokenizer")
    if dist.is_initialized():
        dist.barrier()
    corpus, held_out = (load_corpus(folder, name, seed) for name in sizes)
    tokenizer = load_tokenizer(folder / "tokenizer")
    trainings: dict[str, tuple[Callable[[Schedule], Iterator[Progress]], Schedule]] = {
        "text_tower": (
            lambda how: text_tower.train_text_tower(tokenizer, corpus, folder, how),
            text_tower.SCHEDULE,
        ),
        "autoencoder": (
            lambda how: autoencoder.train_autoencoder(corpus, folder, how),
            autoencoder.SCHEDULE,
        ),
        "decoder": (
            lambda how: autoencoder.train_decoder(corpus, folder, how),
            autoencoder.DECODER_SCHEDULE,
        ),
        "reader": (lambda how: reader.train_reader(held_out, folder, how), reader.SCHEDULE),
        "denoiser": (
            lambda how: denoiser.train_denoiser(tokenizer, corpus, folder, how),
            denoiser.SCHEDULE,
        ),
        "vision_tower": (
            lambda how: vision_tower.train_vision_tower(tokenizer, corpus, folder, how),
            vision_tower.SCHEDULE,
        ),
    }
    for part in parts:
        training, schedule = trainings[part]
        yield from training(replace(schedule, steps=updates or schedule.steps))
