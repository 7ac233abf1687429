"""What the peers import and this project has not: the little of it that their steps use.

``torchvision`` has no CPU build to rely on, so its transforms are written anew, on Pillow and
torch. The others are named at the peers' import and never called.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import huggingface_hub
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel

Transform = Callable[[Any], Any]


class InterpolationMode(Enum):
    """As torchvision's; values are Pillow's."""

    NEAREST = Image.Resampling.NEAREST
    BILINEAR = Image.Resampling.BILINEAR
    BICUBIC = Image.Resampling.BICUBIC
    LANCZOS = Image.Resampling.LANCZOS


def compose(steps: Sequence[Transform]) -> Transform:
    """Apply one transform after the other."""

    def apply(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return apply


def resize(size: int, interpolation: InterpolationMode) -> Transform:
    """Make a picture's shorter side ``size`` pixels long."""

    def apply(picture: Image.Image) -> Image.Image:
        scale = size / min(picture.size)
        width, height = (round(side * scale) for side in picture.size)
        return picture.resize((width, height), interpolation.value)

    return apply


def center_crop(size: int) -> Transform:
    """Cut a square out of a picture's middle."""
    return lambda picture: _cut(picture, size, 0.5, 0.5)


def random_crop(size: int) -> Transform:
    """Cut a square out anywhere."""
    return lambda picture: _cut(picture, size, random.random(), random.random())


def random_horizontal_flip(p: float = 0.5) -> Transform:
    """Mirror a picture or a tensor, with probability ``p``."""

    def apply(value: Image.Image | Tensor) -> Image.Image | Tensor:
        if random.random() >= p:
            return value
        if isinstance(value, Tensor):
            return value.flip(-1)
        return value.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    return apply


def to_tensor() -> Transform:
    """Turn a picture into a tensor (C, H, W) in [0, 1]."""
    return lambda picture: (
        torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
    )


def normalize(mean: Sequence[float], std: Sequence[float]) -> Transform:
    """Shift and scale a tensor's channels."""
    shift, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return lambda tensor: (tensor - shift) / scale


def install() -> None:
    """Let peers import what is not there, and find what newer libraries have moved."""
    names = ("torchvision", "torchvision.transforms", "wandb", "fire")
    torchvision, transforms, *_ = modules = [ModuleType(name) for name in names]
    for name, module in zip(names, modules, strict=True):
        module.__spec__ = ModuleSpec(name, None)
    torchvision.transforms = transforms
    transforms.InterpolationMode = InterpolationMode
    transforms.Compose, transforms.Resize, transforms.ToTensor = compose, resize, to_tensor
    transforms.CenterCrop, transforms.RandomCrop = center_crop, random_crop
    transforms.RandomHorizontalFlip, transforms.Normalize = random_horizontal_flip, normalize
    transforms.Lambda = lambda function: function
    sys.modules.update(zip(names, modules, strict=True))
    for name in ("HfFolder", "Repository"):  # gone since huggingface_hub 1
        setattr(huggingface_hub, name, None)
    if not hasattr(CLIPTextModel, "text_model"):  # the model itself since transformers 5
        CLIPTextModel.text_model = property(lambda model: model)


def _cut(picture: Image.Image, size: int, across: float, down: float) -> Image.Image:
    width, height = picture.size
    left, top = round((width - size) * across), round((height - size) * down)
    return picture.crop((left, top, left + size, top + size))
