"""A tiny Stable Diffusion model with random weights, and folders of pictures; no network."""

from __future__ import annotations

import json
import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from mlflow_server import server, server_port  # noqa: F401
from PIL import Image
from registry_store import mei, registry_store, world  # noqa: F401
from stores import keep_in
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    ViTConfig,
    ViTModel,
)

from pti_pipeline.families import load
from pti_pipeline.steps.world_training.tokenizer import build_tokenizer
from pti_pipeline.tracking.store import connect

WORDS = ("a", "photo", "of", "cat", "dog", "on", "the", "beach", "picture", "drawing", "image")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def build_base(folder: Path, prediction: str) -> Path:
    tokenizer = build_tokenizer(WORDS, folder / "words")
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.5,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=16,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"), "v_prediction")


@pytest.fixture(scope="session")
def tiny_epsilon_folder(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base-epsilon"), "epsilon")


@pytest.fixture
def base(tiny_folder):
    return load(str(tiny_folder), "cpu")


@pytest.fixture
def double_base(base):
    """The tiny model in float64, where packed and separate training agree to rounding."""
    base.dtype = torch.float64
    for part in (base.text_encoder, base.vae, base.denoiser):
        part.double()
    return base


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(3):
        pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database with its tables: making them takes seconds, copying them none."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        connect()
    return path


@pytest.fixture
def store(tmp_path, monkeypatch, empty_store):
    """A fresh tracking store, and a working folder of its own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    keep_in(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def experiment(store, monkeypatch):
    """An experiment's id, in which this process's runs are kept."""
    made = str(connect().create_experiment("experiment"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
    return made


def preprocessing(folder: Path, size: int) -> None:
    facts = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    facts |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny CLIP model with random weights."""
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    tokenizer = build_tokenizer(WORDS, folder)
    torch.manual_seed(0)
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, **shape}
    for name in ("bos", "eos", "pad"):
        text[f"{name}_token_id"] = getattr(tokenizer, f"{name}_token_id")
    vision = {"image_size": 16, "patch_size": 4, **shape}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    preprocessing(folder, 16)
    return folder


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory):
    """A tiny vision transformer with random weights."""
    folder = tmp_path_factory.mktemp("dino") / "tiny-dino"
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=24,
        patch_size=8,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    preprocessing(folder, 24)
    return folder
