"""Parts of the world that were trained before, read from the training's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPTokenizer

import pti_pipeline.families.hushed  # noqa: F401
from pti_pipeline.errors import ModelError
from pti_pipeline.weights import read_weights, refuse_pickle, refuse_pickles


def load_part(kind: Any, folder: Path) -> Any:
    """Load a part that another part's training saved.

    Parameters
    ----------
    kind : type
        Of diffusers or transformers, e.g. ``AutoencoderKL``.
    folder : Path

    Raises
    ------
    ModelError
        If it is not there, is damaged, or may be a pickle.
    """
    try:
        return kind.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    except Exception as error:  # both libraries raise anything on a broken folder
        refuse_pickles(folder)
        raise _lacking(folder, error) from error


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the world's tokenizer, as :func:`load_part`."""
    try:
        return CLIPTokenizer.from_pretrained(folder)
    except Exception as error:
        raise _lacking(folder, error) from error


def load_tensor(path: Path, name: str) -> Tensor:
    """Read one tensor of a file, as :func:`load_part`."""
    refuse_pickle(path)
    try:
        return read_weights(path)[0][name]
    except Exception as error:
        raise _lacking(path, error) from error


def _lacking(place: Path, error: Exception) -> ModelError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return ModelError("E409", f"'{place}' can't be read ({reason})", "train that part again")
