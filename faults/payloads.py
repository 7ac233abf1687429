"""Files that run a command when they are unpickled, or imported: a sentinel appears."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


class Payload:
    """What an attacker would pickle: read back, it makes a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, ...]:
        """Be the answer of a call."""
        return os.system, (f"touch '{self.sentinel}'",)


def _torch(payload: Payload, zipped: bool) -> bytes:
    file = io.BytesIO()
    weights = {"unet.a.lora_A.weight": torch.zeros(2, 2), "emb": payload}
    torch.save(weights, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _numpy(payload: Payload) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([payload], dtype=object))
    return file.getvalue()


def _arrays(payload: Payload) -> bytes:
    """As ``numpy.savez`` writes them, under the names of the world's corpus."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name in ("images", "masks", "x", "y", "size", "species", "color"):
            packed.writestr(f"{name}.npy", _numpy(payload))
    return file.getvalue()


FORMS: dict[str, Callable[[Payload], bytes]] = {
    "torch": lambda payload: _torch(payload, zipped=True),
    "protocol 2": lambda payload: pickle.dumps(payload, 2),
    "old torch": lambda payload: _torch(payload, zipped=False),
    "protocol 0": lambda payload: pickle.dumps(payload, 0),
    "protocol 5": lambda payload: pickle.dumps({"a": [payload]}, 5),
    "arrays": _arrays,
}
"""Kinds of pickles by name; those that are commonest first."""


def plant(path: Path, form: str, sentinel: Path) -> Path:
    """Write a file of one of the kinds of :data:`FORMS`; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(FORMS[form](Payload(sentinel)))
    return path


def plant_code(path: Path, name: str, sentinel: Path) -> Path:
    """Write a module that acts when it is imported, and has a class of a name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"import os\nos.system(\"touch '{sentinel}'\")\n\n\nclass {name}:\n    pass\n"
    path.write_text(text, encoding="utf-8")
    return path
