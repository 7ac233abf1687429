"""What a training needs, loaded and checked before any run is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from torch import Tensor

from pti_pipeline.captions import read_prompts
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.preview import WatchSettings
from pti_pipeline.regularizers import find as find_regularizer
from pti_pipeline.settings import (
    BaseSettings,
    FinetuneSettings,
    InvertSettings,
    TrainSettings,
)
from pti_pipeline.steps.attempts import Facts, Within
from pti_pipeline.steps.pivot_runs import check_base, find_pivots
from pti_pipeline.targets import check_rank, chosen
from pti_pipeline.tracking.find import Found
from pti_pipeline.twins import ingredients
from pti_pipeline.views import check, in_shapes


@dataclass(frozen=True)
class Inversion:
    """Everything that an inversion needs."""

    where: BaseSettings
    base: BaseModel
    images: Path
    subject: Subject
    token: str
    initializer: str
    row: Tensor


@dataclass(frozen=True)
class Finetuning:
    """Everything that a fine-tuning needs.

    ``inversions`` are the runs that hold the pivots, by the run ids that the user gave.
    """

    where: BaseSettings
    base: BaseModel
    inversions: dict[str, Found]
    images: Path
    subject: Subject


def prepare_inversion(
    where: BaseSettings,
    images: Path,
    token: str,
    initializer: str,
    experiments: Sequence[InvertSettings] = (),
) -> Inversion:
    """Load the base and the pictures.

    Parameters
    ----------
    where : BaseSettings
    images : Path
        Folder of the subject's pictures.
    token, initializer : str
        Placeholder token, and the word it starts from.
    experiments : sequence of InvertSettings
        What the pictures must have.

    Raises
    ------
    UsageError, DataError, ModelError
        Whatever is wrong with them.
    """
    base = load(*astuple(where))
    base.check_token(token)
    row = base.initializer_row(initializer)
    subject = _pictures(images, base, experiments)
    return Inversion(where, base, images, subject, token, initializer, row)


def prepare_finetuning(
    where: BaseSettings, experiments: Sequence[FinetuneSettings], images: Path | None
) -> Finetuning:
    """Find the pivots, load the base and the pictures.

    Parameters
    ----------
    where : BaseSettings
        The base must be the one that the pivots were inverted on.
    experiments : sequence of FinetuneSettings
        Name the pivots.
    images : Path, optional
        The first inversion's own folder by default.

    Raises
    ------
    UsageError, DataError, ModelError
        If a run holds no pivot, the base is another, the pivots differ in more than their values,
        pictures can't be read, or there is no such regularizer.
    """
    for name in dict.fromkeys(e.regularizer for e in experiments):
        find_regularizer(name)
    inversions = find_pivots([e.pivot for e in experiments])
    base = load(*astuple(where))
    check_base(base, inversions.values())
    endings = chosen(base.denoiser, experiments[0], base.feed_forward)  # the same of all
    check_rank(base.denoiser, max(e.rank for e in experiments), endings)
    first = next(iter(inversions.values()))
    folder = images or Path(first.tags["pti.images"])
    return Finetuning(where, base, inversions, folder, _pictures(folder, base, experiments))


def _pictures(folder: Path, base: BaseModel, experiments: Sequence[TrainSettings]) -> Subject:
    """Load the pictures, with what the experiments want of them."""
    subject = load_subject(folder, base.resolution)
    for each in experiments:
        check(subject, each)
    named = [each.templates for each in experiments if each.templates]  # the same of all
    if not named:
        return subject
    return replace(subject, templates=read_prompts(Path(named[0]), "templates"))


def seen(ready: Inversion | Finetuning, settings: TrainSettings) -> list[Subject]:
    """The pictures in the shapes that a training sees them in."""
    return [some for some, _ in in_shapes(ready.base, ready.subject, ready.images, settings)]


def facts(ready: Inversion | Finetuning, watch: WatchSettings, within: Within) -> Facts:
    """All that decides what a training gives, beside the experiment's own settings."""
    if isinstance(ready, Inversion):
        who = {"step": "invert", "token": ready.token, "initializer": ready.initializer}
    else:
        who = {"step": "finetune"}
    return {
        **who,
        "base model": ready.base.fingerprint,
        "device": ready.base.device.type,
        "precision": ready.where.precision,
        **({} if ready.where.base_bits == 16 else {"base bits": ready.where.base_bits}),
        "pictures": ready.subject.fingerprint,
        "templates": ready.subject.templates,
        "twins": ingredients(ready.subject, ready.images),
        **asdict(watch),
        **asdict(within),
    }
