"""What in the project reads files and folders: base models, readers, weights, the world's parts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel

from faults.payloads import plant, plant_code
from pti_pipeline.data import load_subject
from pti_pipeline.errors import PtiError
from pti_pipeline.exports import read_lora
from pti_pipeline.families import WORLD, load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.features import load_clip, load_dino, load_world_clip
from pti_pipeline.pivot import load_embedding, load_pivot
from pti_pipeline.steps.measured import load_measured
from pti_pipeline.steps.world_training.corpus import build_corpus, load_corpus
from pti_pipeline.steps.world_training.saved import load_part, load_tensor
from pti_pipeline.world.reader import load_reader

Load = Callable[[], object]
Prepare = Callable[[Path, str, Path], Load]
"""``prepare(folder, form, sentinel)`` plants a payload and returns what is about to read it."""


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes
    ----------
    name : str
    prepare : callable
    exit_code : int
        Of the error that refuses.
    raises : type
        Of that error.
    pickled : bool
        Whether it is a pickle that is planted; else code that a model brings along.
    tells : bool
        Whether the error says that a pickle can run code.
    passes_over : bool
        Whether what is planted is left alone, and the rest is good without it.
    """

    name: str
    prepare: Prepare
    exit_code: int = 4
    raises: type[Exception] = PtiError
    pickled: bool = True
    tells: bool = True
    passes_over: bool = False


@cache
def world() -> BaseModel:
    """The embedded model."""
    return load("world", "cpu")


def copied(source: Path, folder: Path) -> Path:
    """Copy a folder by links: only what is planted is written."""
    shutil.copytree(source, folder, copy_function=os.symlink)
    return folder


def _clip(source: str) -> object:
    return load_clip(source, torch.device("cpu"))


def _dino(source: str) -> object:
    return load_dino(source, torch.device("cpu"))


def _world_clip(source: str) -> object:
    return load_world_clip(Path(source), torch.device("cpu"))


def _attach(path: Path) -> None:
    with world().lora_file(path):
        pass


READ: dict[str, Callable[[Path], object]] = {
    "pivot": load_pivot,
    "LoRA of ours": lambda path: world().load_lora(path),
    "LoRA to export": read_lora,
    "LoRA made elsewhere": _attach,
    "embedding made elsewhere": lambda path: load_embedding(path, [128]),
    "base in one file": lambda path: load(str(path), "cpu"),
    "factor reader": load_reader,
    "latents of the world's training": lambda path: load_tensor(path, "latents"),
}
"""Reads one file."""
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".PT", "")


def _file(read: Callable[[Path], object], suffix: str) -> Prepare:
    def prepare(folder: Path, form: str, sentinel: Path) -> Load:
        path = plant(folder / f"weights{suffix}", form, sentinel)
        return lambda: read(path)

    return prepare


def _model(name: str, load_it: Callable[[str], object], source: Path, part: str) -> Prepare:
    """Plant in a model's folder: ``part`` is the file's path; safetensors are taken away."""

    def prepare(folder: Path, form: str, sentinel: Path) -> Load:
        model = copied(source, folder / name)
        file = model / part
        for weights in file.parent.glob("*.safetensors"):
            weights.unlink()
        if "CLIP" in name or "DINO" in name:
            facts = {"size": 48, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            (model / "preprocessor_config.json").write_text(json.dumps(facts))
        plant(file, form, sentinel)
        return lambda: load_it(str(model))

    return prepare


def _models() -> list[Door]:
    doors = []
    for part in ("unet", "vae", "text_encoder"):
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        pickled = "pytorch_model" if part == "text_encoder" else stem
        for file in (f"{part}/{stem}.safetensors", f"{part}/{pickled}.bin"):
            prepare = _model("base", lambda source: load(source, "cpu"), WORLD, file)
            doors.append(Door(f"base's {file}", prepare))
    for name, read in (("CLIP", _clip), ("DINO", _dino)):
        for file in ("model.safetensors", "pytorch_model.bin"):
            doors.append(Door(f"{name}'s {file}", _model(name, read, WORLD / "clip", file)))
    for file in ("clip/model.safetensors", "clip/pytorch_model.bin"):
        doors.append(Door(f"a world's {file}", _model("a world", _world_clip, WORLD, file)))
    parts = {
        "vae/diffusion_pytorch_model": AutoencoderKL,
        "unet/diffusion_pytorch_model": UNet2DConditionModel,
        "text_encoder/pytorch_model": CLIPTextModel,
        "clip/pytorch_model": CLIPModel,
    }
    for file, kind in parts.items():
        place = Path(file).parent

        def part_of(source: str, kind: type = kind, place: Path = place) -> object:
            return load_part(kind, Path(source) / place)

        doors.append(Door(f"training's {file}", _model("training", part_of, WORLD, f"{file}.bin")))
    return doors


def _component(folder: Path, _: str, sentinel: Path) -> Load:
    """A base whose denoiser is a class of its own code."""
    model = copied(WORLD, folder / "model")
    index = json.loads((model / "model_index.json").read_text("utf-8"))
    index["unet"] = ["evil", "Evil"]
    (model / "model_index.json").unlink()
    (model / "model_index.json").write_text(json.dumps(index))
    plant_code(model / "unet" / "evil.py", "Evil", sentinel)
    plant_code(model / "evil.py", "Evil", sentinel)
    return lambda: load(str(model), "cpu")


def _mapped(file: str, read: Callable[[str], object]) -> Prepare:
    """A model whose ``file`` says that its classes are in code of its own."""

    def prepare(folder: Path, _: str, sentinel: Path) -> Load:
        model = copied(WORLD / "clip", folder / "model")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(WORLD / "tokenizer" / name, model / name)
        facts = {"size": 48, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (model / "preprocessor_config.json").write_text(json.dumps(facts))
        config = json.loads((model / file).read_text("utf-8"))
        kinds = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
        config["auto_map"] = {**kinds, "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        config |= {"model_type": "evil"} if file == "config.json" else {"tokenizer_class": "Evil"}
        (model / file).unlink()
        (model / file).write_text(json.dumps(config))
        plant_code(model / "evil.py", "Evil", sentinel)
        return lambda: read(str(model))

    return prepare


def _corpus(read: Callable[[Path], object]) -> Prepare:
    def prepare(folder: Path, form: str, sentinel: Path) -> Load:
        # numpy reads nothing of a zip of torch's: it has arrays under other names
        plant(folder / "corpus.npz", "arrays" if form == "torch" else form, sentinel)
        return lambda: read(folder)

    return prepare


def _picture(folder: Path, form: str, sentinel: Path) -> Load:
    plant(folder / "0.png", form, sentinel)
    return lambda: load_subject(folder, 48)


DOORS = [
    *(
        Door(f"{name}, {suffix or 'no ending'}", _file(read, suffix))
        for name, read in READ.items()
        for suffix in SUFFIXES
    ),
    Door("measurement of a study", _file(load_measured, ".safetensors"), passes_over=True),
    *_models(),
    Door("corpus of the world's training", _corpus(lambda f: load_corpus(f, "corpus", 0))),
    Door(
        "corpus that is there already",
        _corpus(lambda f: [*build_corpus(f, "corpus", 4, 48, 0, False)]),
    ),
    Door("picture", _picture, exit_code=3, tells=False),
    Door("component of a base", _component, pickled=False, tells=False),
    Door("CLIP of other code", _mapped("config.json", _clip), pickled=False, tells=False),
    Door("DINO of other code", _mapped("config.json", _dino), pickled=False, tells=False),
    Door(
        "CLIP's tokenizer of other code",
        _mapped("tokenizer_config.json", _clip),
        pickled=False,
        passes_over=True,  # it says what it is otherwise, too
    ),
]
"""Those that need no tracking store."""
