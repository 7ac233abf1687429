"""The text tower: learns to say what a caption says, before it meets any picture.

A contrastive loss alone leaves words that rarely change the picture's embedding (left and right,
crown and cap) almost equal, and the denoiser then can't obey them. Reading the factors back from
the caption's tokens keeps them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pti_pipeline.randomness import initialised_from
from pti_pipeline.steps.world_training.corpus import Corpus
from pti_pipeline.steps.world_training.loop import Progress, Schedule, device, rank, train
from pti_pipeline.steps.world_training.tokenizer import LENGTH
from pti_pipeline.world.reader import CLASSES, class_targets

WIDTH = 128
SCHEDULE = Schedule(steps=1500, batch=128, lr=1e-3)


class FactorsFromText(nn.Module):
    """A text tower with one linear head for each categorical factor.

    The heads read the mean of the words' states and, alike, the end token's: the denoiser looks
    at the former, the image tower at the latter.
    """

    def __init__(self, tower: CLIPTextModel) -> None:
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleDict({k: nn.Linear(WIDTH, n) for k, n in CLASSES.items()})

    def forward(self, ids: Tensor, words: Tensor) -> dict[str, Tensor]:
        """Logits by factor, each of shape (2 len(ids), classes): from the words, from the end."""
        output = self.tower(input_ids=ids)
        mean = (output.last_hidden_state * words[..., None]).sum(1) / words.sum(1, keepdim=True)
        pooled = torch.cat([mean, output.pooler_output])
        return {name: head(pooled) for name, head in self.heads.items()}


def new_text_tower(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build an untrained tower for ``tokenizer``."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def encode_text(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids of ``captions``, padded to :data:`LENGTH`, shape (n, LENGTH)."""
    batch = tokenizer(
        captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    ids: Tensor = batch.input_ids
    return ids


def train_text_tower(
    tokenizer: CLIPTokenizer, corpus: Corpus, folder: Path, schedule: Schedule = SCHEDULE
) -> Iterator[Progress]:
    """Train the tower to predict every factor from captions; save it as ``folder/text_encoder``."""
    with initialised_from(corpus.seed, "text_tower"):
        model = FactorsFromText(new_text_tower(tokenizer))
    targets = class_targets(corpus.factors)

    def loss(step: int, count: int) -> Tensor:
        stream = f"text/{rank()}"
        rows = corpus.rows(stream, step, count)
        ids = encode_text(tokenizer, corpus.captions(rows, stream, step)).to(device())
        logits = model(ids, (ids != tokenizer.eos_token_id).float())
        true = {k: targets[k][rows].repeat(2).to(device()) for k in CLASSES}
        losses = [F.cross_entropy(logits[k], true[k]) for k in CLASSES]
        return torch.stack(losses).mean()

    yield from train("text_tower", model, loss, schedule, folder)
    if rank() == 0:
        model.tower.save_pretrained(folder / "text_encoder")
