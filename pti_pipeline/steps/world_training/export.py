"""Puts the trained parts together: a Stable Diffusion folder, the CLIP model and the reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel

from pti_pipeline.checkpoint import newest
from pti_pipeline.errors import UsageError
from pti_pipeline.steps.world_training.denoiser import new_denoiser, new_scheduler
from pti_pipeline.steps.world_training.saved import load_part, load_tokenizer


def export_world(folder: Path, weights: Path) -> None:
    """Write the parts found in the training's ``folder`` to ``weights``, in half precision.

    A denoiser that is still being trained is taken as its average stands.
    """
    unet = _denoiser(folder)
    pipeline = StableDiffusionPipeline(
        vae=load_part(AutoencoderKL, folder / "vae"),
        text_encoder=load_part(CLIPTextModel, folder / "text_encoder"),
        tokenizer=load_tokenizer(folder / "tokenizer"),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(weights)
    if (folder / "clip").is_dir():
        load_part(CLIPModel, folder / "clip").half().save_pretrained(weights / "clip")
    for config in weights.glob("*/config.json"):
        _clean(config)
    if (folder / "reader").is_dir():
        shutil.copytree(folder / "reader", weights / "reader", dirs_exist_ok=True)


def _clean(config: Path) -> None:
    """Forget where the part was trained, and let transformers load half precision as float32.

    diffusers does the latter of itself.
    """
    settings = json.loads(config.read_text("utf-8"))
    for part in (settings, settings.get("text_config", {}), settings.get("vision_config", {})):
        part.pop("_name_or_path", None)
    if settings.get("dtype") == "float16":
        settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _denoiser(folder: Path) -> UNet2DConditionModel:
    if (folder / "unet").is_dir():
        return load_part(UNet2DConditionModel, folder / "unet")
    known = newest(folder / "denoiser.state")
    if known is None:
        raise UsageError("E206", f"'{folder}' holds no denoiser", "train that part first")
    vae = AutoencoderKL.load_config(folder / "vae")
    unet = new_denoiser(vae["sample_size"] // 4)
    prefix = "average/unet."
    unet.load_state_dict(
        {k.removeprefix(prefix): v for k, v in known.tensors.items() if k.startswith(prefix)}
    )
    return unet
