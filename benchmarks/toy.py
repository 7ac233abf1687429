"""Stable Diffusion pipelines with random weights, saved as diffusers' folders, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pti_pipeline.steps.world_training.tokenizer import merge_rules

WORDS = ("a", "photo", "picture", "drawing", "image", "an", "of", "the", "rabbit")
PICTURES = 8  # two batches of four: no epoch ends in a smaller one


@dataclass(frozen=True)
class Shapes:
    """What a pipeline is made of.

    Attributes
    ----------
    vocabulary : int
        Tokens of the tokenizer, and rows of the embedding table.
    text, vae, unet : mapping
        Settings of transformers' and diffusers' classes.
    """

    vocabulary: int
    text: Mapping[str, int]
    vae: Mapping[str, Any]
    unet: Mapping[str, Any]


def _blocks(vae: tuple[int, ...], unet: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    across = len(unet) - 1
    return (
        {
            "block_out_channels": vae,
            "down_block_types": ("DownEncoderBlock2D",) * len(vae),
            "up_block_types": ("UpDecoderBlock2D",) * len(vae),
        },
        {
            "block_out_channels": unet,
            "down_block_types": ("CrossAttnDownBlock2D",) * across + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * across,
        },
    )


def toy() -> Shapes:
    """Stable Diffusion 1.5 in small, with the weights of its parts as true as may be.

    The UNet has 1.49 M parameters, the table 4.4 % of that (SD 1.5: 4.4 %); encoding a picture
    costs 0.58 of the UNet's forward and backward pass (SD 1.5: 0.67).
    """
    vae, unet = _blocks((16, 24, 24, 32), (32, 64, 64))
    return Shapes(
        1024,
        {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        },
        {**vae, "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 256},
        {**unet, "layers_per_block": 1, "sample_size": 32, "cross_attention_dim": 64},
    )


def stable_diffusion_1_5() -> Shapes:
    """The true shapes, at 512 pixels."""
    vae, unet = _blocks((128, 256, 512, 512), (320, 640, 1280, 1280))
    return Shapes(
        49408,
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        {**vae, "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 512},
        {**unet, "layers_per_block": 2, "sample_size": 64, "cross_attention_dim": 768},
    )


def build(shapes: Shapes, folder: Path) -> Path:
    """Save a pipeline with random weights, always the same, in ``folder``; return the folder."""
    tokenizer = tokenizer_of(shapes.vocabulary)
    marks = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    torch.manual_seed(0)
    StableDiffusionPipeline(
        text_encoder=CLIPTextModel(
            CLIPTextConfig(vocab_size=shapes.vocabulary, **shapes.text, **marks)
        ),
        vae=AutoencoderKL(latent_channels=4, **shapes.vae),
        unet=UNet2DConditionModel(attention_head_dim=8, **shapes.unet),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def tokenizer_of(size: int) -> CLIPTokenizer:
    """One of so many tokens, which knows :data:`WORDS`."""
    rules = merge_rules(WORDS)
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, rules)]
    unique = list(dict.fromkeys(tokens))
    unused = [f"<unused-{i}>" for i in range(size - len(unique) - 2)]
    vocabulary = [*unique, *unused, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=rules,
        model_max_length=77,
    )


def paint(folder: Path, side: int) -> Path:
    """Save smooth random pictures of ``side`` pixels in ``folder``; return the folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder
