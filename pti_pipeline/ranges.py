"""Checks of single values; what is out of range is refused in one line that names its remedy."""

from __future__ import annotations

import math
from collections.abc import Collection

from pti_pipeline.errors import UsageError

SWITCH = ("no", "yes")
SEEDS = 2**32
"""Seeds are below: what every generator of random numbers takes."""
MOST = {
    "steps": 1_000_000,
    "batch_size": 4096,
    "micro_batch": 4096,
    "vectors": 32,
    "rank": 4096,
    "crops": 16,
    "reg_every": 1_000_000,
    "reg_bank": 100_000,
    "sampling_steps": 1000,
    "sample_every": 1_000_000,
    "probes": 1000,
    "samples": 100_000,
    "edit_seeds": 10_000,
    "deciding": 1000,
}
"""Largest values: beyond are slips of the hand that would fill the memory or never end."""
GUIDANCE = 100.0
"""The largest, likewise."""


def check_learning_rate(lr: float) -> None:
    """Raise ``UsageError`` unless ``lr`` is finite and above 0."""
    if not (math.isfinite(lr) and lr > 0):
        raise UsageError("E201", f"{lr} is no learning rate", "use a number above 0, e.g. 0.005")


def check_seed(seed: int) -> None:
    """Raise ``UsageError`` unless ``seed`` is one."""
    if not 0 <= seed < SEEDS:
        raise UsageError("E202", f"seed is {seed}", f"use an integer from 0 to {SEEDS - 1}")


def check_within(name: str, value: int, least: int) -> None:
    """Raise ``UsageError`` unless an integer lies between ``least`` and its :data:`MOST`."""
    if not least <= value <= MOST[name]:
        hint = f"use an integer from {least} to {MOST[name]}"
        raise UsageError("E202", f"{name} is {value}", hint)


def check_between(name: str, value: float, least: float, most: float) -> None:
    """Raise ``UsageError`` unless a number lies between two others; NaN lies nowhere."""
    if not least <= value <= most:
        raise UsageError("E202", f"{name} is {value}", f"use a number from {least:g} to {most:g}")


def check_from_zero(name: str, value: float) -> None:
    """Raise ``UsageError`` unless a number is finite and at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise UsageError("E202", f"{name} is {value}", "use a number from 0, which is off")


def check_above_zero(name: str, value: float) -> None:
    """Raise ``UsageError`` unless a number is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError("E202", f"{name} is {value}", "use a number above 0")


def check_word(name: str, word: str, known: Collection[str]) -> None:
    """Raise ``UsageError`` unless a word is one of those known."""
    if word not in known:
        raise UsageError("E202", f"{name} is '{word}'", f"use one of {', '.join(known)}")
