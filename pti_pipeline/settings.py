"""What a user may set, checked where it is made; a value out of range names its remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from pti_pipeline.errors import UsageError

T = TypeVar("T")
Settings = TypeVar("Settings", bound="TrainSettings")

STEPS = 1000
"""Optimizer updates of every training, so that learning rates compare."""

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers that a LoRA adapts: the attention's projections."""


AT_DISTANCE = ("stop", "project")
"""What may happen at a bound on the distance."""


@dataclass(frozen=True)
class BaseSettings:
    """Which base model, and where it runs; see :func:`pti_pipeline.families.load`."""

    base: str = "world"
    device: str = "auto"
    precision: str = "fp32"


@dataclass(frozen=True)
class TrainSettings:
    """One training of one experiment.

    Attributes
    ----------
    lr : float
        Adam's learning rate, constant.
    steps : int
        Optimizer updates.
    batch_size : int
        Rows of each update.
    seed : int
        Of every draw: picture, caption, timestep, noise and a LoRA's start.
    clip : float
        Largest L2 norm of the experiment's gradient; 0 leaves it alone.
    until_distance : float
        ``distance/delta_norm`` that it may travel; 0 is no bound.
    at_distance : str
        What happens there: ``stop``, or ``project``, which trains on at this distance (the
        projection of Gouk et al. 2021).
    stop_at_leak : bool
        Stop when the twins show that a position is being learnt.
    """

    lr: float
    steps: int = STEPS
    batch_size: int = 4
    seed: int = 0
    clip: float = 0.0
    until_distance: float = 0.0
    at_distance: str = "stop"
    stop_at_leak: bool = False

    def __post_init__(self) -> None:
        check_learning_rate(self.lr)
        for name in ("clip", "until_distance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError("E202", f"{name} is {value}", "use a number from 0, which is off")
        if self.at_distance not in AT_DISTANCE:
            what = f"at_distance is '{self.at_distance}'"
            raise UsageError("E202", what, f"use one of {', '.join(AT_DISTANCE)}")
        for name in ("steps", "batch_size"):
            _at_least(name, getattr(self, name), 1)


@dataclass(frozen=True)
class InvertSettings(TrainSettings):
    """One inversion; ``vectors`` is the number of learned vectors of the placeholder token."""

    lr: float = 0.005
    vectors: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("vectors", self.vectors, 1)


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """One LoRA around a pivot: inner dimension ``rank``, scaled by ``alpha / rank``.

    ``pivot`` is the run id of the inversion, or of a sweep that chose one.
    """

    pivot: str = ""
    lr: float = 0.0003
    rank: int = 4
    alpha: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("rank", self.rank, 1)
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise UsageError("E202", f"alpha is {self.alpha}", "use a number above 0")


@dataclass(frozen=True)
class WatchSettings:
    """What is shown of a training under way.

    Attributes
    ----------
    sample_every : int
        Steps between two sample grids; 0 draws one at the end only.
    probes : int
        Steps, evenly spaced in their logarithm, at which twins are read and the model's answers
        are compared with the base's; 0 for none.
    """

    sample_every: int = 250
    probes: int = 20


@dataclass(frozen=True)
class SampleSettings:
    """How pictures are drawn: steps of the base's scheduler, and the guidance scale."""

    steps: int = 20
    guidance: float = 3.0

    def __post_init__(self) -> None:
        _at_least("steps", self.steps, 1)
        if not (math.isfinite(self.guidance) and self.guidance >= 1):
            raise UsageError("E202", f"guidance is {self.guidance}", "use a number from 1")


def parse_learning_rates(text: str) -> tuple[float, ...]:
    """Read learning rates separated by commas.

    Examples
    --------
    >>> parse_learning_rates("0.001, 3e-3")
    (0.001, 0.003)
    """
    rates = []
    for word in text.split(","):
        try:
            rates.append(float(word))
        except ValueError:
            raise UsageError(
                "E201", f"'{word.strip()}' is no learning rate", "write numbers such as 0.005"
            ) from None
    for rate in rates:
        check_learning_rate(rate)
    return _distinct("learning rate", tuple(rates))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds separated by commas."""
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError("E202", f"'{text}' are no seeds", "write integers such as 0,1,2") from None
    return _distinct("seed", seeds)


def parse_vary(text: str, kind: type[Settings]) -> tuple[str, tuple[float, ...]]:
    """Read a setting's name and values, ``name:value,value``; none from an empty text.

    Examples
    --------
    >>> parse_vary("rank:4,8", FinetuneSettings)
    ('rank', (4, 8))
    >>> parse_vary("", FinetuneSettings)
    ('', ())
    """
    if not text:
        return "", ()
    name, _, values = text.partition(":")
    fixed = ("lr", "seed", "pivot", "at_distance", "stop_at_leak")
    known = [f.name for f in fields(kind) if f.name not in fixed]
    if name not in known or not values:
        raise UsageError(
            "E218",
            f"'{text}' varies nothing that this stage has",
            f"write name:value,value with one of {', '.join(known)}",
        )
    number = type(getattr(kind, name))
    try:
        return name, _distinct(name, tuple(number(word) for word in values.split(",")))
    except ValueError:
        raise UsageError(
            "E218", f"'{values}' are no values of {name}", f"write numbers, e.g. {name}:1,2"
        ) from None


def halved(steps: int, count: int) -> tuple[int, ...]:
    """Numbers of steps that double up to ``steps``: places along one training's curve.

    Examples
    --------
    >>> halved(1000, 7)
    (16, 31, 62, 125, 250, 500, 1000)
    >>> halved(3, 7)
    (1, 2, 3)
    """
    return tuple(sorted({max(1, round(steps / 2**i)) for i in range(count)}))


def parse_pivots(text: str) -> tuple[str, ...]:
    """Read run ids separated by commas."""
    return _distinct("pivot", tuple(word.strip() for word in text.split(",")))


def experiments(
    lrs: Sequence[float],
    seeds: Sequence[int],
    vary: tuple[str, Sequence[float | str]],
    common: Settings,
) -> list[Settings]:
    """Every combination of a sweep's values, in ``common`` settings; learning rates run fastest."""
    name, values = vary
    changes: list[dict[str, Any]] = [{name: v} for v in values] or [{}]
    others = [replace(common, **change) for change in changes]
    return [replace(o, lr=lr, seed=seed) for o in others for seed in seeds for lr in lrs]


def label(settings: TrainSettings, varied: str = "") -> str:
    """Name an experiment: ``"lr=0.005 seed=0"``, and the varied setting if there is one."""
    value = getattr(settings, varied) if varied else ""
    shown = value[:8] if isinstance(value, str) else f"{value:g}"
    extra = f" {varied}={shown}" if varied else ""
    return f"lr={settings.lr:g} seed={settings.seed}{extra}"


def _distinct(what: str, values: tuple[T, ...]) -> tuple[T, ...]:
    for value in values:
        if values.count(value) > 1:
            raise UsageError("E202", f"{what} {value} is there twice", "name each value once")
    return values


def check_learning_rate(lr: float) -> None:
    """Raise ``UsageError`` unless ``lr`` is finite and above 0."""
    if not (math.isfinite(lr) and lr > 0):
        raise UsageError("E201", f"{lr} is no learning rate", "use a number above 0, e.g. 0.005")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError("E202", f"{name} is {value}", f"use an integer from {least}")
