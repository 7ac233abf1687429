"""Shares cases out: each on a core of its own, or all of equal shape in one pass of a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import machine
from pti_pipeline.characters import Characters
from pti_pipeline.families.base import BaseModel
from pti_pipeline.meter import (
    Case,
    Measured,
    Meter,
    equipment,
    measure,
    measure_plain,
    measure_rest,
)
from pti_pipeline.workers import worker_pool

LIBRARIES = 700 * 2**20
"""Memory of a process that has imported the libraries, in bytes."""
WEIGHTS_A_WORKER = 4
"""Further memory of a process that samples, in sizes of the base's weights."""


def measure_all(meter: Meter, cases: Sequence[Case]) -> Iterator[Measured]:
    """Measure every character of ``cases``, in order, side by side where there are cores.

    On a CPU a pass of many characters is no cheaper than one of each, so cases are taken apart
    and shared out among processes of one thread each; see :func:`pti_pipeline.workers.worker_pool`.

    Raises
    ------
    ResourceError
        If one of the processes dies.
    """
    base = equipment(meter).base
    if base.device.type == "cpu":
        cases = [single for case in cases for single in apart(case)]
    places = min(len(cases), _places(base))
    if places < 2:
        for case in cases:
            yield from measure(meter, case)
        return
    with worker_pool(places) as pool:
        # in two parts, so that no core is idle while another measures the last character
        jobs = [
            (pool.submit(_plain, meter, parcel), pool.submit(_rest, meter, parcel))
            for parcel in map(_parcel, cases)
        ]
        for first, second in jobs:
            for plain, (edits, bank, grid) in zip(first.result(), second.result(), strict=True):
                yield Measured(_tensors(plain), _tensors(edits), bank, grid)


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


def _plain(meter: Meter, parcel: Parcel) -> list[dict[str, NDArray[Any]]]:
    return [_arrays(plain) for plain in measure_plain(meter, _case(parcel))]


def _rest(meter: Meter, parcel: Parcel) -> list[tuple[dict[str, NDArray[Any]], Any, Any]]:
    rows = measure_rest(meter, _case(parcel))
    return [(_arrays(edits), bank, grid) for edits, bank, grid in rows]


def _case(parcel: Parcel) -> Case:
    name, vectors, states, config, file = parcel
    who = Characters(name, torch.from_numpy(vectors))
    return Case(who, tuple(_tensors(state) for state in states), config, file)


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _places(base: BaseModel) -> int:
    """How many processes can sample at once: one on a GPU, else one a core, as memory allows."""
    if base.device.type != "cpu":
        return 1
    parts = (base.denoiser, *base.text_encoders)
    weights = sum(p.nbytes for part in parts for p in part.parameters())
    fitting = machine.free_bytes(base.device) // (LIBRARIES + WEIGHTS_A_WORKER * weights)
    return max(1, min(machine.cores(), fitting))
