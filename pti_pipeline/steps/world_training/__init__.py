"""Trains the embedded world's models, part by part, each resumable: ``pti world train``.

Run under ``torchrun --nproc-per-node N -m pti_pipeline world train`` to share each update's
samples among N processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch.distributed as dist
from transformers import CLIPTokenizer

from pti_pipeline.errors import UsageError
from pti_pipeline.steps.world_training.autoencoder import train_autoencoder
from pti_pipeline.steps.world_training.corpus import build_corpus, load_corpus
from pti_pipeline.steps.world_training.denoiser import train_denoiser
from pti_pipeline.steps.world_training.loop import Progress, rank
from pti_pipeline.steps.world_training.reader import train_reader
from pti_pipeline.steps.world_training.text_tower import train_text_tower
from pti_pipeline.steps.world_training.tokenizer import build_tokenizer
from pti_pipeline.steps.world_training.vision_tower import train_vision_tower
from pti_pipeline.world import WORDS

PARTS = ("text_tower", "autoencoder", "reader", "denoiser", "vision_tower")
"""In an order in which each part finds what it needs."""

SIZE = 48
IMAGES = 32_000


def train_world(
    folder: Path, parts: Sequence[str] = PARTS, seed: int = 0, images: int = IMAGES
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
        Size of the corpus.

    Yields
    ------
    Progress

    Raises
    ------
    UsageError
        If a part is unknown.
    """
    for part in parts:
        if part not in PARTS:
            raise UsageError("E206", f"no part '{part}'", f"choose from {', '.join(PARTS)}")
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    sizes = {"corpus": images, "held_out": images // 2}
    if rank() == 0:
        for name, count in sizes.items():
            for done in build_corpus(folder, name, count, SIZE, seed, held_out=name == "held_out"):
                yield Progress(name, done, count, 0.0, 0.0)
        build_tokenizer(WORDS, folder / "tokenizer")
    if dist.is_initialized():
        dist.barrier()
    corpus, held_out = (load_corpus(folder, name, seed) for name in sizes)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    trainings = {
        "text_tower": lambda: train_text_tower(tokenizer, corpus, folder),
        "autoencoder": lambda: train_autoencoder(corpus, folder),
        "reader": lambda: train_reader(held_out, folder),
        "denoiser": lambda: train_denoiser(tokenizer, corpus, folder),
        "vision_tower": lambda: train_vision_tower(tokenizer, corpus, folder),
    }
    for part in parts:
        yield from trainings[part]()
