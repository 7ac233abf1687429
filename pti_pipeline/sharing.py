"""Shares cases out: each on a core of its own, or all of equal shape in one pass of a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import machine
from pti_pipeline.characters import Characters
from pti_pipeline.errors import ResourceError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.meter import Case, Measured, Meter, equipment, measure

LIBRARIES = 700 * 2**20
"""Memory of a process that has imported the libraries, in bytes."""
WEIGHTS_A_WORKER = 4
"""Further memory of a process that samples, in sizes of the base's weights."""


def measure_all(meter: Meter, cases: Sequence[Case]) -> Iterator[Measured]:
    """Measure every character of ``cases``, in order, side by side where there are cores.

    On a CPU a pass of many characters is no cheaper than one of each, so cases are taken apart
    and shared out among processes of one thread each. These are new interpreters: a script that
    calls this needs ``if __name__ == "__main__":``.

    Raises
    ------
    ResourceError
        If one of the processes dies.
    """
    base = equipment(meter).base
    if base.device.type == "cpu":
        cases = [single for case in cases for single in apart(case)]
    places = min(len(cases), _places(base))
    if places == 1:
        for case in cases:
            yield from measure(meter, case)
        return
    pool = ProcessPoolExecutor(places, get_context("spawn"), _end_with_parent)
    with _one_thread(), pool:
        try:
            for rows in pool.map(partial(_work, meter), map(_parcel, cases)):
                yield from (Measured(_tensors(a), _tensors(b), *rest) for a, b, *rest in rows)
        except BrokenProcessPool as error:
            raise ResourceError(
                "E601", "a process that drew samples died", "free some memory, or use --device cuda"
            ) from error
        except BaseException:
            for process in active_children():
                process.terminate()
            raise


def apart(case: Case) -> list[Case]:
    """Split a case into one for each character."""
    vectors, states = case.who.vectors, case.states
    return [
        Case(
            Characters(case.who.name, vectors[k : k + 1]), states[k : k + 1], case.config, case.file
        )
        for k in range(len(vectors))
    ]


Parcel = tuple[str, NDArray[np.floating], list[dict[str, NDArray[Any]]], Any, Any]
"""A case as arrays: tensors would each hold a file open on their way to another process."""


def _parcel(case: Case) -> Parcel:
    states = [_arrays(state) for state in case.states]
    return case.who.name, case.who.vectors.numpy(), states, case.config, case.file


def _work(meter: Meter, parcel: Parcel) -> list[tuple[Any, ...]]:
    name, vectors, states, config, file = parcel
    who = Characters(name, torch.from_numpy(vectors))
    case = Case(who, tuple(_tensors(state) for state in states), config, file)
    return [(_arrays(m.plain), _arrays(m.edits), m.bank, m.grid) for m in measure(meter, case)]


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, even if that was killed."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _places(base: BaseModel) -> int:
    """How many processes can sample at once: one on a GPU, else one a core, as memory allows."""
    if base.device.type != "cpu":
        return 1
    parts = (base.denoiser, base.text_encoder)
    weights = sum(p.nbytes for part in parts for p in part.parameters())
    fitting = machine.free_bytes(base.device) // (LIBRARIES + WEIGHTS_A_WORKER * weights)
    return max(1, min(machine.cores(), fitting))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes started inside take one thread each: more would fight for the cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
