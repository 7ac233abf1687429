"""Training state on disk: safetensors, written beside the old file and renamed over it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], step: int) -> None:
    """Write ``tensors`` and the step they belong to; a crash leaves the old file or the new one.

    Parameters
    ----------
    path : Path
        The file to replace.
    tensors : mapping of str to Tensor
        Anything that is needed to go on, by name.
    step : int
        Number of optimizer updates done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, temporary, metadata={"step": str(step)})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], int]:
    """Read what :func:`save_tensors` wrote: the tensors (on the CPU) and their step."""
    with safe_open(path, framework="pt", device="cpu") as file:
        step = int(file.metadata()["step"])
        return {name: file.get_tensor(name) for name in file.keys()}, step  # noqa: SIM118


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
