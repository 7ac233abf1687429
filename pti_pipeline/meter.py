"""What is measured of a case: characters on one base, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pti_pipeline import lora, overpowering, reconstruction
from pti_pipeline.characters import PLAIN, Characters, draw, preview
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.evaluation import EDITS, PHOTO_EDITS
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.metrics import Masks
from pti_pipeline.preview import USUAL
from pti_pipeline.readers import Readers, load_readers, read_edits, read_plain, read_subject
from pti_pipeline.settings import BaseSettings, SampleSettings


@dataclass(frozen=True)
class Meter:
    """How characters are measured: on what base, against which pictures, with how many draws.

    Attributes
    ----------
    where : BaseSettings
    images : Path
        Folder of the training pictures.
    word : str
        Class word of what they show.
    samples : int
        Samples without a position in the prompt, for appearance, leak and diversity.
    edit_seeds : int
        Samples of each edit prompt.
    how : SampleSettings
        How samples are drawn.
    clip_model, dino_model : str
        Folders or hub ids of models that compare pictures; none by default.
    """

    where: BaseSettings
    images: Path
    word: str
    samples: int
    edit_seeds: int
    how: SampleSettings
    clip_model: str = ""
    dino_model: str = ""


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
    file : Path, optional
        A LoRA made elsewhere, in place of ``states``.
    """

    who: Characters
    states: tuple[Mapping[str, Tensor], ...] = ()
    config: Mapping[str, object] | None = None
    file: Path | None = None


@dataclass(frozen=True)
class Measured:
    """Samples of one character read back, and the metrics on the fixed bank.

    Attributes
    ----------
    plain, edits : dict of str to Tensor
        Read from samples of :data:`PLAIN` and of edit prompts, by
        :func:`pti_pipeline.readers.read_plain` and ``read_edits``.
    bank : dict of str to float
        Reconstruction and overpowering, which need no samples, by logged name.
    grid : ndarray, shape (H, W, 3), uint8
        The character's sample grid.
    """

    plain: dict[str, Tensor]
    edits: dict[str, Tensor]
    bank: dict[str, float]
    grid: NDArray[np.uint8]


@dataclass(frozen=True)
class Equipment:
    """What measuring takes, loaded.

    Attributes
    ----------
    base : BaseModel
    subject : Subject
    readers : Readers
    training : dict of str to Tensor
        The training pictures, read as plain samples are.
    masks : ndarray, shape (N, S, S), bool
        The training pictures' subjects.
    """

    base: BaseModel
    subject: Subject
    readers: Readers
    training: dict[str, Tensor]
    masks: Masks

    @property
    def edits(self) -> tuple[str, ...]:
        """Edit prompts that someone here can check."""
        if self.readers.factors:
            return tuple(text for text, _ in EDITS)
        return PHOTO_EDITS if self.readers.clip else ()


@lru_cache(maxsize=1)
def equipment(meter: Meter) -> Equipment:
    """Load the base, the pictures and what reads them; once a process."""
    base = load(*astuple(meter.where))
    subject = load_subject(meter.images, base.resolution)
    readers = load_readers(base, meter.word, meter.clip_model, meter.dino_model)
    return Equipment(base, subject, readers, *read_subject(readers, subject))


def measure(meter: Meter, case: Case) -> list[Measured]:
    """Measure the characters of one case in one pass."""
    parts = zip(measure_plain(meter, case), measure_rest(meter, case), strict=True)
    return [Measured(plain, *rest) for plain, rest in parts]


def measure_plain(meter: Meter, case: Case) -> list[dict[str, Tensor]]:
    """Samples of the plain prompt, read: the first field of :class:`Measured`, and most work."""
    kit = equipment(meter)
    prompts, seeds = [PLAIN] * meter.samples, range(meter.samples)
    with tuned(kit.base, case):
        drawn = draw(kit.base, case.who, prompts, seeds, meter.how)
    return [read_plain(kit.readers, shown) for shown in drawn]


def measure_rest(
    meter: Meter, case: Case
) -> list[tuple[dict[str, Tensor], dict[str, float], NDArray[np.uint8]]]:
    """The other fields: samples of edit prompts, read; metrics on the bank; the sample grid."""
    kit, who = equipment(meter), case.who
    prompts = [text for text in kit.edits for _ in range(meter.edit_seeds)]
    asked = list(range(meter.edit_seeds)) * len(kit.edits)
    with tuned(kit.base, case):
        banks = reconstruction.on_bank(kit.base, who, kit.subject, kit.masks)
        shares = overpowering.shares(kit.base, who, kit.subject)
        grids = preview(kit.base, who, meter.how, USUAL)
        edits = draw(kit.base, who, prompts, asked, meter.how) if prompts else [None] * len(grids)
    return [
        (
            {} if edited is None else read_edits(kit.readers, edited, prompts),
            bank | {"overpowering/share": share},
            grid,
        )
        for edited, bank, share, grid in zip(edits, banks, shares, grids, strict=True)
    ]


@contextmanager
def tuned(base: BaseModel, case: Case) -> Iterator[None]:
    """Attach a case's LoRAs, for a while."""
    if case.file is not None:
        with base.lora_file(case.file):
            yield
        return
    if not case.states or case.config is None:
        yield
        return
    adapter = lora.attach_states(base.denoiser, case.states, case.config, base.encoders)
    try:
        yield
    finally:
        lora.detach(adapter)
