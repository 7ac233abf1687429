"""Several values at once, as a user writes them: learning rates, seeds, one setting's values."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from pti_pipeline.errors import UsageError
from pti_pipeline.ranges import check_learning_rate, check_seed
from pti_pipeline.settings import FORMS, TrainSettings

RUN_ID = re.compile(r"[0-9a-fA-F]{32}")
MANY = 1000
"""Values of one option, and experiments of one sweep, that are still meant so."""

T = TypeVar("T")
Settings = TypeVar("Settings", bound=TrainSettings)


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
    for seed in seeds:
        check_seed(seed)
    return _distinct("seed", seeds)


def parse_weights(text: str) -> tuple[float, ...]:
    """Read weights separated by commas; none from an empty text.

    Examples
    --------
    >>> parse_weights("1, 0.7")
    (1.0, 0.7)
    """
    try:
        weights = tuple(float(word) for word in text.split(",")) if text else ()
    except ValueError:
        weights = (math.nan,)
    if not all(map(math.isfinite, weights)):
        raise UsageError("E253", f"'{text}' are no weights", "write numbers such as 1,0.7")
    return weights


def parse_vary(text: str, kind: type[Settings]) -> tuple[str, tuple[float, ...]]:
    """Read a setting's name and values, ``name:value,value``; none from an empty text.

    Examples
    --------
    >>> from pti_pipeline.settings import FinetuneSettings
    >>> parse_vary("rank:4,8", FinetuneSettings)
    ('rank', (4, 8))
    >>> parse_vary("", FinetuneSettings)
    ('', ())
    """
    if not text:
        return "", ()
    name, _, values = text.partition(":")
    words = ("pivot", "at_distance", "timestep_range", "templates")
    fixed = ("lr", "seed", "stop_at_leak", "checkpointing", *words)
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


def parse_forms(text: str) -> tuple[str, ...]:
    """Read forms of an export separated by commas.

    Examples
    --------
    >>> parse_forms("kohya, merged")
    ('kohya', 'merged')
    """
    forms = tuple(word.strip() for word in text.split(","))
    for form in forms:
        if form not in FORMS:
            raise UsageError("E240", f"'{form}' is no form", f"use some of {','.join(FORMS)}")
    return _distinct("form", forms)


def own_number(name: str, usual: int) -> int:
    """Read an environment variable that this project sets for its own processes.

    Raises
    ------
    UsageError
        If somebody else set it, to no such number.
    """
    text = os.environ.get(name, str(usual))
    if not (text.isascii() and text.isdigit()) or int(text) < usual:
        what = f"the environment variable {name} is '{text}'"
        raise UsageError("E261", what, "unset it: pti sets it for its own processes")
    return int(text)


def experiments(
    lrs: Sequence[float],
    seeds: Sequence[int],
    vary: tuple[str, Sequence[float | str]],
    common: Settings,
) -> list[Settings]:
    """Every combination of a sweep's values, in ``common`` settings; learning rates run fastest."""
    name, values = vary
    count = len(lrs) * len(seeds) * max(1, len(values))
    if count > MANY:
        raise UsageError("E202", f"these are {count} experiments", f"sweep at most {MANY} at once")
    changes: list[dict[str, Any]] = [{name: v} for v in values] or [{}]
    others = [replace(common, **change) for change in changes]
    return [replace(o, lr=lr, seed=seed) for o in others for seed in seeds for lr in lrs]


def shown(value: float | str) -> str:
    """Write one value of a setting."""
    return value if isinstance(value, str) else f"{value:g}"


def label(settings: TrainSettings, varied: str = "") -> str:
    """Name an experiment: ``"lr=0.005 seed=0"``, its regularizer, and the varied setting if any."""
    extra = ""
    if varied:
        value = shown(getattr(settings, varied))
        extra = f" {varied}={value[:8] if varied == 'pivot' else value}"
    held = getattr(settings, "regularizer", "none")
    if held != "none" and varied != "regularizer":
        extra = f" {held}{extra}"
    return f"lr={settings.lr:g} seed={settings.seed}{extra}"


def _distinct(what: str, values: tuple[T, ...]) -> tuple[T, ...]:
    if len(values) > MANY:
        raise UsageError("E202", f"{what} has {len(values)} values", f"name at most {MANY}")
    twice = [value for value, times in Counter(values).items() if times > 1]
    if twice:
        raise UsageError("E202", f"{what} {twice[0]} is there twice", "name each value once")
    return values
