"""Measures characters: each on a core of its own, or all of equal shape in one pass of a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import evaluation, lora, machine
from pti_pipeline.characters import Characters, draw, preview
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.errors import ResourceError
from pti_pipeline.evaluation import EDITS, PLAIN
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.metrics import relative_gain
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.world.reader import Reader, load_reader

LIBRARIES = 700 * 2**20
"""Memory of a process that has imported the libraries, in bytes."""
WEIGHTS_A_WORKER = 4
"""Further memory of a process that samples, in sizes of the base's weights."""


@dataclass(frozen=True)
class Meter:
    """How characters are measured: on what base, against which pictures, with how many draws.

    Attributes
    ----------
    where : BaseSettings
    images : Path
        Folder of the training pictures.
    samples : int
        Samples without a position in the prompt, for appearance, leak and diversity.
    edit_seeds : int
        Samples of each edit prompt.
    how : SampleSettings
        How samples are drawn.
    """

    where: BaseSettings
    images: Path
    samples: int
    edit_seeds: int
    how: SampleSettings


@dataclass(frozen=True)
class Case:
    """K characters to be measured together, and their LoRAs where they have some.

    Attributes
    ----------
    who : Characters
    states : tuple of mapping
        One LoRA for each character, under peft's names, or none at all.
    config : mapping
        With ``r``, ``lora_alpha`` and ``target_modules``.
    """

    who: Characters
    states: tuple[Mapping[str, Tensor], ...] = ()
    config: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Measured:
    """Samples of one character read back, and the metrics on the fixed bank.

    Attributes
    ----------
    plain, edits : dict of str to Tensor
        Factors read from samples of :data:`PLAIN` and of :data:`EDITS`; empty without a reader.
    bank : dict of str to float
        Reconstruction metrics by logged name.
    grid : ndarray, shape (H, W, 3), uint8
        The character's sample grid.
    """

    plain: dict[str, Tensor]
    edits: dict[str, Tensor]
    bank: dict[str, float]
    grid: NDArray[np.uint8]


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
    base, _, _ = equipment(meter)
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


def measure(meter: Meter, case: Case) -> list[Measured]:
    """Measure the characters of one case in one pass."""
    base, subject, reader = equipment(meter)
    with tuned(base, case):
        banks = evaluation.reconstruction(base, case.who, subject)
        grids = preview(base, case.who, meter.how)
        if reader is None:
            return [Measured({}, {}, b, g) for b, g in zip(banks, grids, strict=True)]
        seeds = list(range(meter.samples))
        plain = draw(base, case.who, [PLAIN] * meter.samples, seeds, meter.how)
        prompts = [text for text, _, _ in EDITS for _ in range(meter.edit_seeds)]
        asked = list(range(meter.edit_seeds)) * len(EDITS)
        edits = draw(base, case.who, prompts, asked, meter.how)
    read = [evaluation.read_all(reader, part) for part in (plain, edits)]
    return [Measured(*row) for row in zip(*read, banks, grids, strict=True)]


def compare(
    meter: Meter, measured: Measured, references: Mapping[str, Measured]
) -> dict[str, float]:
    """Metrics of one character against others at equal seeds, by logged name.

    Parameters
    ----------
    meter : Meter
    measured : Measured
    references : mapping of str to Measured
        ``class`` (the class word on the base model) and, of a tuning, ``pivot``, in this order.
    """
    _, subject, reader = equipment(meter)
    nearest = list(references.values())[-1]
    before = references["class"].bank["reconstruction/bank_loss"]
    gain = relative_gain(measured.bank["reconstruction/bank_loss"], before)
    row = {**measured.bank, "reconstruction/bank_gain": gain}
    if reader is None:
        return row
    training = reader.read(subject.images)
    obeyed, usual = (evaluation.obedience(m.edits, meter.edit_seeds) for m in (measured, nearest))
    row["reconstruction/appearance"] = evaluation.appearance(measured.plain, training)
    row["reconstruction/appearance_before"] = evaluation.appearance(nearest.plain, training)
    row["editability/obedience"] = obeyed
    row["editability/relative"] = obeyed / usual
    return row | evaluation.leaks(
        evaluation.layouts(measured.plain),
        {name: evaluation.layouts(m.plain) for name, m in references.items()},
        evaluation.layouts(training),
    )


@lru_cache(maxsize=1)
def equipment(meter: Meter) -> tuple[BaseModel, Subject, Reader | None]:
    """Load the base, the pictures and, on the embedded world, the reader; once a process."""
    base = load(meter.where.base, meter.where.device, meter.where.precision)
    subject = load_subject(meter.images, base.resolution)
    return base, subject, load_reader() if meter.where.base == "world" else None


def apart(case: Case) -> list[Case]:
    """Split a case into one for each character."""
    vectors, states = case.who.vectors, case.states
    return [
        Case(Characters(case.who.name, vectors[k : k + 1]), states[k : k + 1], case.config)
        for k in range(len(vectors))
    ]


Parcel = tuple[str, NDArray[np.floating], list[dict[str, NDArray[Any]]], Any]
"""A case as arrays: tensors would each hold a file open on their way to another process."""


def _parcel(case: Case) -> Parcel:
    states = [_arrays(state) for state in case.states]
    return case.who.name, case.who.vectors.numpy(), states, case.config


def _work(meter: Meter, parcel: Parcel) -> list[tuple[Any, ...]]:
    name, vectors, states, config = parcel
    who = Characters(name, torch.from_numpy(vectors))
    case = Case(who, tuple(_tensors(state) for state in states), config)
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


@contextmanager
def tuned(base: BaseModel, case: Case) -> Iterator[None]:
    """Attach a case's LoRAs, for a while."""
    if not case.states or case.config is None:
        yield
        return
    adapter = lora.attach_states(base.denoiser, case.states, case.config)
    try:
        yield
    finally:
        lora.detach(adapter)


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
