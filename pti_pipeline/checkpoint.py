"""Training states on disk, of which a crash at any moment leaves the last whole one.

A checkpoint is a folder ``step-00000250`` with its tensors, facts in JSON, and a manifest of both
files' SHA-256. It is written aside under another name, and there once it has been renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pti_pipeline.errors import ResourceError
from pti_pipeline.hashes import file_hash

KEPT = 2
"""Checkpoints that are there at a time: should the last one be damaged, there is another."""
TENSORS, FACTS, MANIFEST = "state.safetensors", "facts.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after some updates: tensors on the CPU by name, and facts."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, then remove those before the last :data:`KEPT`.

    Parameters
    ----------
    folder : Path
        Of this training's checkpoints alone.
    step : int
        Updates done.
    tensors : mapping of str to Tensor
    facts : mapping, optional
        Anything that JSON can say.

    Raises
    ------
    ResourceError
        If the disk is full or can't be written; earlier checkpoints are as they were.
    """
    place = folder / f"step-{step:08d}"
    aside = folder / f".{place.name}"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, aside / TENSORS)
        _write(aside / FACTS, {"step": step, **(facts or {})})
        _write(aside / MANIFEST, {name: file_hash(aside / name) for name in (TENSORS, FACTS)})
        for path in (*aside.iterdir(), aside):
            _sync(path)
        shutil.rmtree(place, ignore_errors=True)  # of a training that went on from before it
        aside.rename(place)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        size = sum(tensor.nbytes for tensor in tensors.values())
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        what = f"can't write a checkpoint to '{folder}' ({error})"
        hint = f"it needs {size / 1e6:.0f} MB there, where {free / 1e6:.0f} MB are free"
        raise ResourceError("E602", what, hint) from error
    for old in _there(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> Checkpoint | None:
    """Read the last whole checkpoint; a damaged one is told and passed over. None without any."""
    for leftover in folder.glob(".step-*"):  # of a process that died while it wrote
        shutil.rmtree(leftover, ignore_errors=True)
    for place in reversed(_there(folder)):
        try:
            return _read(place)
        except Exception as error:  # whatever a spoiled file makes of its reader
            warnings.warn(f"checkpoint '{place}' is damaged ({error}): passed over", stacklevel=2)
    return None


def _read(place: Path) -> Checkpoint:
    manifest = json.loads((place / MANIFEST).read_bytes())
    for name in (TENSORS, FACTS):
        if file_hash(place / name) != manifest[name]:
            raise ValueError(f"{name} is not what was written")
    facts = json.loads((place / FACTS).read_bytes())
    return Checkpoint(facts.pop("step"), load_file(place / TENSORS), facts)


def _there(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    path.write_bytes(json.dumps(facts, allow_nan=False).encode())


def _sync(path: Path) -> None:
    """Let the disk have it: a folder too, where the system can do that."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimizer's state to ``{"0/exp_avg": tensor, ...}``."""
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
