"""A tiny Stable Diffusion model with random weights, and folders of pictures; no network."""

from __future__ import annotations

import json
import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from built_site import site  # noqa: F401
from mlflow_server import server, server_port  # noqa: F401
from registry_store import mei, registry_store, world  # noqa: F401
from stores import keep_in
from transformers import (
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTModel,
)

from faults.tiny import LEAST, WORDS, build_base, build_pictures
from pti_pipeline.families import load
from pti_pipeline.steps.world_training.tokenizer import build_tokenizer
from pti_pipeline.tracking.store import connect


@pytest.fixture(autouse=True)
def the_same_each_time():
    """Whichever test ran before, and however many cores there are."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def somebody():
    """Act as a user who may not read or change everything, which root may."""
    mine = os.geteuid()
    os.seteuid(65534 if mine == 0 else mine)
    yield
    os.seteuid(mine)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"), "v_prediction")


@pytest.fixture(scope="session")
def least_folder(tmp_path_factory):
    """A base for what is about runs, whatever the model is."""
    return build_base(tmp_path_factory.mktemp("least"), "v_prediction", LEAST)


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
    for part in (base.text_encoders[0], base.vae, base.denoiser):
        part.double()
    return base


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return build_pictures(tmp_path_factory.mktemp("pictures"))


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
