"""What is measured of a case: characters on one base, in one pass, and against others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import evaluation, lora, overpowering
from pti_pipeline.characters import Characters, draw, preview
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.evaluation import EDITS, PLAIN
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.metrics import relative_gain
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.world.reader import Reader, load_reader


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
        Reconstruction and overpowering, which need no samples, by logged name.
    grid : ndarray, shape (H, W, 3), uint8
        The character's sample grid.
    """

    plain: dict[str, Tensor]
    edits: dict[str, Tensor]
    bank: dict[str, float]
    grid: NDArray[np.uint8]


def measure(meter: Meter, case: Case) -> list[Measured]:
    """Measure the characters of one case in one pass."""
    base, subject, reader = equipment(meter)
    with tuned(base, case):
        banks = [
            bank | {"overpowering/share": share}
            for bank, share in zip(
                evaluation.reconstruction(base, case.who, subject),
                overpowering.shares(base, case.who, subject),
                strict=True,
            )
        ]
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
    share = measured.bank["overpowering/share"]
    row["overpowering/relative"] = share / references["class"].bank["overpowering/share"]
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
