"""How many experiments share a pass: as many as memory holds, by measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from pti_pipeline.errors import ResourceError
from pti_pipeline.machine import free_bytes

USED = 0.8
"""Share of the free memory that a pass may fill; the rest is for what a backward pass adds."""

T = TypeVar("T")


def held_bytes(forward: Callable[[], object]) -> int:
    """Bytes of the tensors that ``forward`` keeps for the backward pass, each counted once."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
        total = sum(storages.values())
        del result  # it kept the storages, and so their addresses, apart until now
    return total


def passes(
    experiments: int, forward: Callable[[slice], object], device: torch.device
) -> list[slice]:
    """Split K experiments into passes that fit into memory.

    Parameters
    ----------
    experiments : int
        K.
    forward : callable
        Runs the experiments of a slice forward; measured with one and with two.
    device : torch.device

    Returns
    -------
    list of slice
        Of nearly equal lengths, in order.

    """
    if experiments == 1:
        return [slice(0, 1)]
    try:
        one, two = (held_bytes(lambda n=n: forward(slice(0, n))) for n in (1, 2))  # type: ignore[misc]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return [slice(k, k + 1) for k in range(experiments)]
    return _split(experiments, max(1, int(USED * free_bytes(device) / max(1, two - one))))


def halving(
    parts: Sequence[slice], work: Callable[[Sequence[slice]], T]
) -> tuple[Sequence[slice], T]:
    """Do ``work(parts)``; when memory runs out, again with parts half as long.

    Returns
    -------
    parts, result
        The parts that fitted, and what ``work`` gave.

    Raises
    ------
    ResourceError
        If a part of one experiment does not fit.
    """
    while True:
        try:
            return parts, work(parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            longest = max(part.stop - part.start for part in parts)
            if longest == 1:
                raise ResourceError(
                    "E601",
                    "memory ran out with one experiment alone",
                    "use a smaller --batch-size, or --precision bf16",
                ) from error
            parts = _split(parts[-1].stop, longest // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device's or the host's allocator gave up."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )


def _split(count: int, longest: int) -> list[slice]:
    pieces = -(-count // longest)
    edges = [count * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
