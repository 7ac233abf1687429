"""Packs: experiments of a sweep that share one pass, as jobs that any process can take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any, cast

from pti_pipeline.prefixes import share
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, FinetuneSettings, InvertSettings, TrainSettings
from pti_pipeline.steps.attempts import Within
from pti_pipeline.steps.finetune import run_finetunings
from pti_pipeline.steps.invert import run_inversions
from pti_pipeline.steps.prepared import prepare_finetuning, prepare_inversion

OWN = (
    *("lr", "seed", "steps", "clip", "weight_decay", "ema", "pivot", "reg_weight"),
    *("until_distance", "stop_at_leak"),
)
"""Settings that may differ inside a pack."""

Experiments = Sequence[TrainSettings]


@dataclass(frozen=True)
class Pack:
    """Some experiments of a sweep, and all that is needed to run them elsewhere.

    Attributes
    ----------
    stage : str
        ``"invert"`` or ``"finetune"``.
    where : BaseSettings
    subject : dict of str to str
        ``images``, and of an inversion ``token`` and ``initializer``.
    experiments : tuple of TrainSettings
    watch : WatchSettings
    study, sweep : str
        Run ids that the experiments' runs are tagged with.
    name : str
        Which pack of the sweep, ``"1/2"``.
    varied : str
        Setting that the sweep varies beside learning rate and seed.
    """

    stage: str
    where: BaseSettings
    subject: dict[str, str]
    experiments: tuple[TrainSettings, ...]
    watch: WatchSettings
    study: str = ""
    sweep: str = ""
    name: str = "1/1"
    varied: str = ""

    def to_json(self) -> str:
        """Write the pack as JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Pack:
        """Read what :meth:`to_json` wrote."""
        facts: dict[str, Any] = json.loads(text)
        kind = InvertSettings if facts["stage"] == "invert" else FinetuneSettings
        facts["where"] = BaseSettings(**facts["where"])
        watch = facts["watch"]
        lists = {name: tuple(watch[name]) for name in ("preview", "preview_seeds")}
        facts["watch"] = WatchSettings(**{**watch, **lists})
        facts["experiments"] = tuple(kind(**e) for e in facts["experiments"])
        return Pack(**facts)


def train(pack: Pack) -> None:
    """Train a pack's experiments, each with its own run.

    Where an earlier attempt at this pack was interrupted, since its process died, it goes on.
    """
    last = pack.watch, Within(pack.study, pack.sweep, pack.name, pack.varied)
    images = pack.subject["images"]
    if pack.stage == "invert":
        words = pack.subject["token"], pack.subject["initializer"]
        inversions = cast("Sequence[InvertSettings]", pack.experiments)
        inversion = prepare_inversion(pack.where, Path(images), *words, inversions)
        run_inversions(inversion, inversions, *last)
    else:
        folder = Path(images) if images else None
        settings = cast("Sequence[FinetuneSettings]", pack.experiments)
        run_finetunings(prepare_finetuning(pack.where, settings, folder), settings, *last)


def split(experiments: Experiments, workers: int) -> list[tuple[TrainSettings, ...]]:
    """Split experiments into packs: of equal shapes, and enough to keep ``workers`` busy.

    Experiments that share one training stay together.

    Examples
    --------
    >>> runs = [InvertSettings(lr, vectors=v) for v in (1, 2) for lr in (0.1, 0.2)]
    >>> [[(e.vectors, e.lr) for e in pack] for pack in split(runs, 1)]
    [[(1, 0.1), (1, 0.2)], [(2, 0.1), (2, 0.2)]]
    >>> len(split(runs, 4))
    4
    >>> len(split([InvertSettings(0.1, steps=n) for n in (10, 100, 1000)], 4))
    1
    """
    groups = [tuple(group) for _, group in groupby(sorted(experiments, key=_shape), _shape)]
    shapes = [_strands(group) for group in groups]
    pieces = min(-(-workers // len(shapes)), max(map(len, shapes)))
    bounds = [[len(shape) * i // pieces for i in range(pieces + 1)] for shape in shapes]
    return [
        tuple(chain.from_iterable(shape[start:end]))
        for shape, marks in zip(shapes, bounds, strict=True)
        for start, end in pairwise(marks)
        if start < end
    ]


def _strands(experiments: Experiments) -> list[list[TrainSettings]]:
    """Group experiments by the training that they are parts of."""
    shared = share(experiments)
    strands: list[list[TrainSettings]] = [[] for _ in shared.trained]
    for settings, owner in zip(experiments, shared.owner, strict=True):
        strands[owner].append(settings)
    return strands


def _shape(settings: TrainSettings) -> list[tuple[str, object]]:
    return sorted((k, v) for k, v in asdict(settings).items() if k not in OWN)
