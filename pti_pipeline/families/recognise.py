"""Which family a base model is of: by a folder's index, a single file's weights, or a hub id."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

import pti_pipeline.families.hushed  # noqa: F401
from pti_pipeline.errors import ModelError, reason
from pti_pipeline.families.single_file import look_into
from pti_pipeline.headers import HUB_ID
from pti_pipeline.weights import SUFFIX

INDEX = "model_index.json"
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of pipelines that are not used here."""


def recognise(source: str, name: str, files: Mapping[str, str]) -> tuple[str, list[str]]:
    """Tell the pipeline class that a base model is of, and the parts that it does without.

    Parameters
    ----------
    source : str
        A folder, a ``.safetensors`` file or a hub id.
    name : str
        As the user wrote it.
    files : mapping of str to str
        Class of each kind of single file, by diffusers' name of the kind.

    Returns
    -------
    str
        Name of the class, maybe of no family that is known here; of a single file then its kind.
    list of str
        Parts.

    Raises
    ------
    ModelError
        If it can't be told, or parts are missing.
    """
    if os.path.isdir(source):
        index = read_index(source, name)
        _check_parts(Path(source), name, index)
    elif os.path.isfile(source) or source.endswith(SUFFIX):
        file = look_into(Path(source), name)
        return files.get(file.kind, file.kind), file.absent
    else:
        index = read_index(source, name)
    absent = [part for part, kind in index.items() if kind == [None, None]]
    return str(index["_class_name"]), absent


def read_index(source: str, name: str) -> dict[str, Any]:
    """Index of a folder, or of a model on the hub; raise ``ModelError`` if there is none."""
    if not os.path.isdir(source):
        return _asked_index(source, name)
    folder = Path(source)
    if not (folder / INDEX).is_file():
        raise ModelError("E401", f"no model in '{name}'", f"give a folder with a {INDEX}")
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        return {**index, "_class_name": index["_class_name"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"can't read the {INDEX} of '{name}' ({error!r})"
        raise ModelError("E401", what, "give a folder that diffusers saved") from error


def _check_parts(folder: Path, name: str, index: Mapping[str, Any]) -> None:
    """Raise ``ModelError`` if a folder lacks parts that its index names."""
    pairs = {part: kind for part, kind in index.items() if isinstance(kind, list)}
    named = [part for part, kind in pairs.items() if kind[-1:] != [None] and part not in OPTIONAL]
    if missing := [part for part in named if not (folder / part).is_dir()]:
        there = ", ".join(part for part in named if part not in missing) or "nothing"
        what = f"'{name}' lacks {', '.join(missing)}; of the parts that its {INDEX} names it has "
        raise ModelError("E401", what + there, "copy or download the whole folder")


def _asked_index(source: str, name: str) -> dict[str, Any]:
    """Index of a model on the hub, or in this machine's copy of it."""
    if not HUB_ID.fullmatch(source):
        what = f"can't find the base model '{name}'"
        raise ModelError("E401", what, "give a folder, a .safetensors file or a hub id, owner/name")
    try:
        return dict(DiffusionPipeline.load_config(source))
    except Exception as error:
        what = f"can't find the base model '{name}' here or on the hub ({reason(error)})"
        raise ModelError(
            "E401", what, "give a folder or a file, or a hub id while online"
        ) from error
