"""The image tower: contrastive learning against the frozen text tower, for the CLIP metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from pti_pipeline.randomness import initialised_from
from pti_pipeline.steps.world_training.corpus import Corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, device, rank, train
from pti_pipeline.steps.world_training.saved import load_part
from pti_pipeline.steps.world_training.text_tower import encode_text

SCHEDULE = Schedule(steps=1400, batch=128, lr=1e-3, decay=0.995)


def new_clip(text: CLIPTextModel, size: int) -> CLIPModel:
    """Build a CLIP model with an untrained image tower around the trained, frozen text tower."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        projection_dim=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=size,
        patch_size=8,
    )
    config = CLIPConfig(
        text_config=text.config.to_dict(), vision_config=vision.to_dict(), projection_dim=96
    )
    model = CLIPModel(config)
    model.text_model.load_state_dict(text.state_dict())
    model.text_model.requires_grad_(False)
    return model


def train_vision_tower(
    tokenizer: CLIPTokenizer, corpus: Corpus, folder: Path, schedule: Schedule = SCHEDULE
) -> Iterator[Progress]:
    """Train with the symmetric contrastive loss (Radford et al. 2021); save as ``folder/clip``."""
    text = load_part(CLIPTextModel, folder / "text_encoder")
    with initialised_from(corpus.seed, "vision_tower"):
        model = new_clip(text, corpus.images.shape[-1])

    def loss(step: int, count: int) -> Tensor:
        stream = f"clip/{rank()}"
        rows = corpus.rows(stream, step, count)
        ids = encode_text(tokenizer, corpus.captions(rows, stream, step))
        pixels = corpus.pixels(rows).to(device())
        output = model(input_ids=ids.to(device()), pixel_values=pixels)
        logits, match = output.logits_per_image, torch.arange(count, device=device())
        return (F.cross_entropy(logits, match) + F.cross_entropy(logits.T, match)) / 2

    yield from train("vision_tower", model, loss, schedule, folder)
    if rank() == 0:
        model.save_pretrained(folder / "clip")
