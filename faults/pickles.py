"""Pickles, and code that models bring along, through everything that reads a file.

``python -m faults.pickles`` prints the numbers; from ``executions`` on they should be 0.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from faults.doors import DOORS, Door
from faults.payloads import FORMS
from faults.stored import STORED, own_store
from pti_pipeline.errors import PtiError

SHORT = 2
"""Kinds of pickles that each loader is tried with; all of them in the long form."""
CALLS = {"os", "posix", "nt", "builtins", "subprocess"}
"""Modules in which an unpickler that looks something up is about to do harm."""


@dataclass
class Outcome:
    """What became of one attempt."""

    door: Door
    form: str
    executed: bool
    error: Exception | None


ALL = (*DOORS, *STORED)


def attempts(doors: Iterable[Door], long: bool) -> Iterator[Outcome]:
    """Try loaders with pickles; those of :data:`faults.stored.STORED` in the store that is set."""
    forms = cycle(FORMS)
    for door in doors:
        chosen = [*FORMS] if long else [*islice(forms, SHORT)]
        for form in chosen if door.pickled else chosen[:1]:
            with TemporaryDirectory() as folder:
                yield _attempt(door, form, Path(folder))


def measure(long: bool = False) -> dict[str, float]:
    """Count what ran, and what was not refused as it should be.

    Returns
    -------
    dict of str to float
        ``loaders`` and ``attempts`` made; how many were ``refused``, or ``passed_over`` for a
        sound part; ``executions`` of a payload;
        ``deserialisations``, calls of ``torch.load`` and look-ups of an unpickler;
        ``tracebacks``, errors that are not told in a line; ``wrong_codes``; ``unsaid``, refusals
        that do not say that a pickle can run code.
    """
    with own_store(), watched() as seen:
        found = [*attempts(ALL, long)]
    verdicts = [verdict(outcome) for outcome in found]
    return {
        "loaders": len(ALL),
        "attempts": len(found),
        **{name: verdicts.count(name) for name in ("refused", "passed_over")},
        "executions": sum(outcome.executed for outcome in found),
        "deserialisations": len(seen),
        **{name: verdicts.count(name) for name in ("tracebacks", "wrong_codes", "unsaid")},
    }


def _attempt(door: Door, form: str, folder: Path) -> Outcome:
    sentinel, error = folder / "sentinel", None
    inside = folder / "inside"
    inside.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load = door.prepare(inside, form, sentinel)
        try:
            load()
        except Exception as caught:
            error = caught
    return Outcome(door, form, sentinel.exists(), error)


def verdict(outcome: Outcome) -> str:
    """Say how an attempt ended: ``refused``, or what was wrong with it."""
    door, error = outcome.door, outcome.error
    if error is None:
        return "passed_over" if door.passes_over else "wrong_codes"
    if not isinstance(error, door.raises):
        return "tracebacks"
    if isinstance(error, PtiError) and error.exit_code != door.exit_code:
        return "wrong_codes"
    says = "pickle" in str(error) or not door.tells
    return "refused" if says else "unsaid"


@contextmanager
def watched() -> Iterator[list[str]]:
    """Note every call of ``torch.load`` and every look-up of an unpickler, for a while."""
    seen, on, load = list[str](), [True], torch.load

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.append("torch.load")
        return load(*args, **kwargs)

    def hook(event: str, args: tuple[object, ...]) -> None:
        if on and event == "pickle.find_class" and str(args[0]) in CALLS:
            seen.append(f"{args[0]}.{args[1]}")

    sys.addaudithook(hook)  # it can't be taken away, only be told to be silent
    with patch.object(torch, "load", noted):
        yield seen
    on.clear()


if __name__ == "__main__":
    print(measure("--long" in sys.argv))
