"""Pictures and texts as CLIP (Radford et al. 2021) and DINO (Caron et al. 2021) see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers  # whose names are imported as they are asked for
from torch import Tensor

from pti_pipeline.errors import ModelError
from pti_pipeline.weights import refuse_pickles

BATCH = 32
OPTIONAL = "pooler"
"""Weights that DINO's files lack and that we don't use."""


@dataclass(frozen=True)
class Vision:
    """A model that gives pictures features, and how it wants to see them.

    Attributes
    ----------
    name : str
        As a user would know it, e.g. ``"clip-vit-base-patch32"``.
    model : PreTrainedModel
        Frozen, float32.
    size : int
        Side of the pictures that it sees, in pixels.
    mean, std : Tensor, shape (3, 1, 1)
        Of pixels in [0, 1], that it was trained with.
    tokenizer : object
        Of a CLIP model.
    """

    name: str
    model: Any
    size: int
    mean: Tensor
    std: Tensor
    tokenizer: Any = None


def load_clip(source: str, device: torch.device) -> Vision:
    """Load a CLIP model from a folder or a hub id.

    Raises
    ------
    ModelError
        If it can't be opened, is of another kind or has no safetensors.
    """
    facts = _preprocessing(source, "CLIP")
    model = _open(transformers.CLIPModel, source, "CLIP", "clip")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # transformers raises anything on a broken folder
        raise _refused(source, "CLIP", error) from error
    return _ready(Path(source).name, model, facts, device, tokenizer)


def load_dino(source: str, device: torch.device) -> Vision:
    """Load a DINO model (any version, or another vision transformer), as :func:`load_clip`."""
    facts = _preprocessing(source, "DINO")
    return _ready(Path(source).name, _open(transformers.AutoModel, source, "DINO"), facts, device)


def load_world_clip(world: Path, device: torch.device) -> Vision:
    """Load the embedded world's CLIP model, which reads with the world's tokenizer."""
    model = _open(transformers.CLIPModel, str(world / "clip"), "CLIP", "clip")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        world / "tokenizer", trust_remote_code=False
    )
    half, size = [0.5] * 3, model.config.vision_config.image_size
    facts = {"size": size, "image_mean": half, "image_std": half}
    return _ready("world", model, facts, device, tokenizer)


def subject_features(vision: Vision, images: Tensor, masks: Tensor) -> Tensor:
    """Features of the subjects alone, each cut out by its mask and enlarged.

    Where and how large a subject stands, and before what, does not count. The background takes
    the mean color that the model was trained with.

    Parameters
    ----------
    vision : Vision
    images : Tensor, shape (n, 3, S, S), in [-1, 1]
    masks : Tensor, shape (n, S, S), bool

    Returns
    -------
    Tensor, shape (n, d), of unit length; NaN where a mask is empty
    """
    pixels = _normalised(vision, images) * masks[:, None]
    found = masks.flatten(1).any(1)
    cut = [_square(one, mask) for one, mask in zip(pixels[found], masks[found], strict=True)]
    seen = [_resized(one[None], vision.size) for one in cut]
    if not seen:
        return torch.full((len(images), 1), torch.nan)
    known = _features(vision, torch.cat(seen))
    features = torch.full((len(images), known.shape[1]), torch.nan)
    features[found.cpu()] = known
    return features


def text_similarities(vision: Vision, images: Tensor, texts: Sequence[str]) -> Tensor:
    """Cosine of each picture (n, 3, S, S) with each text, by a CLIP model; (n, texts), -1 to 1."""
    pictures = _features(vision, _resized(_normalised(vision, images), vision.size))
    longest = vision.model.config.text_config.max_position_embeddings
    batch = vision.tokenizer(
        [*texts], padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
    )
    device = vision.mean.device
    with torch.no_grad():
        answer = vision.model.get_text_features(
            input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)
        )
    words: Tensor = F.normalize(_pooled(answer), dim=-1).cpu()
    return pictures @ words.T


def _normalised(vision: Vision, images: Tensor) -> Tensor:
    device = vision.mean.device
    return ((images.to(device) / 2 + 0.5) - vision.mean) / vision.std


def _square(pixels: Tensor, mask: Tensor) -> Tensor:
    """Cut out the smallest square around a mask, zero beyond the picture's edges."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    top, left = int(rows[0]), int(columns[0])
    high, wide = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    side = max(high, wide)
    part = pixels[:, top : top + high, left : left + wide]
    above, before = (side - high) // 2, (side - wide) // 2
    return F.pad(part, (before, side - wide - before, above, side - high - above))


def _resized(pixels: Tensor, size: int) -> Tensor:
    return F.interpolate(pixels, (size, size), mode="bicubic", antialias=True, align_corners=False)


@torch.no_grad()
def _features(vision: Vision, pixels: Tensor) -> Tensor:
    parts = []
    for part in pixels.split(BATCH):
        if vision.tokenizer is None:
            answer = vision.model(pixel_values=part).last_hidden_state[:, 0]
        else:
            answer = _pooled(vision.model.get_image_features(pixel_values=part))
        parts.append(F.normalize(answer, dim=-1).cpu())
    return torch.cat(parts)


def _pooled(answer: Any) -> Tensor:
    pooled: Tensor = answer if isinstance(answer, Tensor) else answer.pooler_output
    return pooled


def _open(kind: Any, source: str, reader: str, model_type: str = "") -> Any:
    try:
        found = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
        if model_type and found != model_type:
            raise ValueError(f"it is a {found} model")
        model, info = kind.from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises anything on a broken folder
        raise _refused(source, reader, error) from error
    missing = [name for name in info["missing_keys"] if not name.startswith(OPTIONAL)]
    if missing:
        raise _refused(source, reader, ValueError(f"it lacks {missing[0]}"))
    return model.eval().requires_grad_(False)


def _preprocessing(source: str, reader: str) -> dict[str, Any]:
    try:
        facts, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source)
    except (OSError, ValueError) as error:
        raise _refused(source, reader, error) from error
    return dict(facts)


def _ready(
    name: str, model: Any, facts: dict[str, Any], device: torch.device, tokenizer: Any = None
) -> Vision:
    reader = "DINO" if tokenizer is None else "CLIP"
    try:
        size = facts.get("crop_size") or facts["size"]
        if isinstance(size, dict):
            size = size.get("height") or size["shortest_edge"]
        mean, std = (torch.tensor(facts[f"image_{k}"])[:, None, None] for k in ("mean", "std"))
        vision = Vision(
            name, model.to(device), int(size), mean.to(device), std.to(device), tokenizer
        )
        _features(vision, torch.zeros(1, 3, vision.size, vision.size, device=device))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise _refused(name, reader, error) from error
    return vision


def _refused(source: str, reader: str, error: Exception) -> ModelError:
    refuse_pickles(Path(source))
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    hint = f"give a folder or hub id of a {reader} model with safetensors and preprocessor_config"
    return ModelError("E413", f"can't read pictures with '{source}' ({reason})", hint)
