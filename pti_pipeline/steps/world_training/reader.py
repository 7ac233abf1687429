"""The factor reader's training: clean renders, softened ones, and the autoencoder's round trip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from pti_pipeline.randomness import generator, initialised_from
from pti_pipeline.steps.world_training.corpus import Corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, device, rank, train
from pti_pipeline.steps.world_training.saved import load_part
from pti_pipeline.world.reader import CLASSES, PLACES, Reader, class_targets, place_targets

SCHEDULE = Schedule(steps=9000, batch=64, lr=1.5e-3, flat=0.3, decay=0.998)


def train_reader(corpus: Corpus, folder: Path, schedule: Schedule = SCHEDULE) -> Iterator[Progress]:
    """Train on classes (cross-entropy) and places (squared error); save ``folder/reader``.

    An eighth of each batch has gone through the autoencoder and an eighth is blurred and noisy,
    since samples of the denoiser are softer than renders.
    """
    with initialised_from(corpus.seed, "reader"):
        model = Reader()
    vae = load_part(AutoencoderKL, folder / "vae").eval().requires_grad_(False)
    classes, places = class_targets(corpus.factors), place_targets(corpus.factors)

    def loss(step: int, count: int) -> Tensor:
        stream = f"reader/{rank()}"
        rows = corpus.rows(stream, step, count)
        pixels = corpus.pixels(rows)
        coded, blurred = pixels[: count // 8], pixels[count // 8 : count // 4]
        with torch.no_grad():
            coded.copy_(vae.decode(vae.encode(coded).latent_dist.mean).sample)
            noise = torch.randn(blurred.shape, generator=generator(corpus.seed, stream, step))
            blurred.copy_(F.avg_pool2d(blurred, 3, 1, 1, count_include_pad=False) + 0.05 * noise)
        logits, place = model(pixels.to(device()))
        losses = [F.cross_entropy(logits[k], classes[k][rows].to(device())) for k in CLASSES]
        off = (place - places[rows].to(device())) / model.reach
        return torch.stack(losses).mean() + off.square().mean()

    yield from train("reader", model, loss, schedule, folder)
    if rank() == 0:
        (folder / "reader").mkdir(exist_ok=True)
        tensors = {name: value.half() for name, value in model.state_dict().items()}
        save_file(tensors, folder / "reader" / "model.safetensors", {"places": ",".join(PLACES)})
