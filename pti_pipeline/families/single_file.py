"""Base models in single files, as their makers publish them: all weights, and no configurations.

diffusers takes the configurations from a repository on the hub that goes with the kind of file;
offline they must be in this machine's copy of it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    CHECKPOINT_KEY_NAMES,
    DIFFUSERS_DEFAULT_PIPELINE_PATHS,
    infer_diffusers_model_type,
)
from safetensors import safe_open

from pti_pipeline.errors import ModelError, reason
from pti_pipeline.weights import refuse_pickle

HINT = "give a folder, a .safetensors file or a hub id of a whole model"
ENCODERS: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("v1", "v2"), (("clip", "open_clip"),)),
    "xl_base": (("clip_sdxl",), ("open_clip_sdxl",)),
    **dict.fromkeys(("sd3", "sd35_medium", "sd35_large"), (("clip_sd3",), ("open_clip_sd3",))),
}
"""What diffusers calls the text encoders of each kind: one of each of these must be there."""
VELOCITY = "v_pred"
"""Mark of XL's files that predict velocities."""
T5 = "text_encoders.t5xxl.transformer.shared.weight"
"""A weight of the encoder that Stable Diffusion 3 can do without."""
T5_PARTS = ["text_encoder_3", "tokenizer_3"]


@dataclass(frozen=True)
class SingleFile:
    """What a single file says of itself.

    Attributes
    ----------
    path : Path
    name : str
        As the user wrote it.
    kind : str
        Of checkpoint, as diffusers calls it.
    weights : collection of str
        Their names.
    """

    path: Path
    name: str
    kind: str
    weights: Collection[str]

    @property
    def absent(self) -> list[str]:
        """Parts of the pipeline that it does without."""
        return T5_PARTS if self.kind.startswith("sd3") and T5 not in self.weights else []


def look_into(path: Path, name: str) -> SingleFile:
    """Tell what a file holds; only names and shapes are read.

    Raises
    ------
    ModelError
        If it may be a pickle, or holds no base model.
    """
    if path.is_file():
        refuse_pickle(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            shapes = {key: file.get_slice(key).get_shape() for key in names}
        kind = str(
            infer_diffusers_model_type(
                {k: torch.empty(s, device="meta") for k, s in shapes.items()}
            )
        )
    except Exception as error:  # whatever safetensors or diffusers make of what is no checkpoint
        what = f"can't load the base model '{name}' ({reason(error)})"
        raise ModelError("E401", what, HINT) from error
    if kind == "v1" and CHECKPOINT_KEY_NAMES["v1"] not in shapes:  # its answer to all else
        what = f"'{name}' holds no checkpoint of a base model that diffusers knows"
        raise ModelError("E401", what, HINT)
    return SingleFile(path, name, kind, set(shapes))


def read(pipeline: Any, file: SingleFile, **options: Any) -> Any:
    """Load a pipeline from a file and the configurations that go with its kind.

    Parameters
    ----------
    pipeline : type
        Of diffusers.
    file : SingleFile
        Of a kind that :data:`ENCODERS` lists.
    options
        Of ``from_single_file``.

    Raises
    ------
    ModelError
        If text encoders are missing, what is predicted is not what the configurations say, or
        these are neither here nor on the hub.
    """
    if file.kind == "xl_base" and VELOCITY in file.weights:  # its configurations are of noise
        what = f"'{file.name}' predicts velocities, which a single file of XL can't say"
        raise ModelError("E401", what, "give it as a folder whose scheduler has v_prediction")
    for either in ENCODERS[file.kind]:  # else diffusers takes them from the hub's copy, if there
        if not any(CHECKPOINT_KEY_NAMES[each] in file.weights for each in either):
            what = f"'{file.name}' lacks text encoders: it has no {' and no '.join(either)}"
            hint = "give the model as a folder, or a file that includes them"
            raise ModelError("E401", what, hint)
    home = DIFFUSERS_DEFAULT_PIPELINE_PATHS[file.kind]["pretrained_model_name_or_path"]
    try:
        pipeline.load_config(home)
    except Exception as error:
        what = f"'{file.name}' holds weights alone, and the configurations of {home} can't be had"
        hint = "load it once while online, which fetches them, or give the model as a folder"
        raise ModelError("E401", f"{what} ({reason(error)})", hint) from error
    return pipeline.from_single_file(
        str(file.path), config=home, **{**dict.fromkeys(file.absent), **options}
    )
