"""The inversions that tunings start from: found, and checked against each other and the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.hashes import both
from pti_pipeline.tracking.find import Found, get_run


def find_pivots(names: Sequence[str]) -> dict[str, Found]:
    """Inversions by the run ids that the user gave: their own, or of sweeps that chose one.

    Raises
    ------
    UsageError
        If a run holds no pivot, one is there twice, or they differ in more than their values.
    """
    inversions = {name: _pivot_run(name) for name in dict.fromkeys(names)}
    if len({found.id for found in inversions.values()}) < len(inversions):
        raise UsageError("E202", "a pivot is there twice", "name each pivot once")
    first = next(iter(inversions.values()))
    for found in inversions.values():
        if _kind(found) != _kind(first):
            pair, what = f"'{found.name}' and '{first.name}'", _difference(found, first)
            raise UsageError(
                "E221", f"the pivots {pair} differ in {what}", "tune them in sweeps of their own"
            )
    return inversions


def check_base(base: BaseModel, inversions: Iterable[Found]) -> None:
    """Raise ``ModelError`` if a pivot was inverted on another base."""
    for found in inversions:
        expected = found.tags["pti.base_fingerprint"]
        if base.fingerprint != expected:
            known = found.tags["pti.base"]
            told = both(expected, base.fingerprint)
            what = f"the pivot was inverted on base '{known}', not on '{base.name}' ({told})"
            raise ModelError("E404", what, f"use --base {known}")


def _kind(inversion: Found) -> dict[str, str]:
    """Return what the pivots of one pass must have in common."""
    return {
        "token": inversion.tags["pti.token"],
        "initializer": inversion.tags["pti.initializer"],
        "pictures": inversion.tags["pti.data_fingerprint"],
        "vectors": inversion.params["vectors"],
    }


def _difference(one: Found, other: Found) -> str:
    a, b = _kind(one), _kind(other)
    return ", ".join(name for name in a if a[name] != b[name])


def _pivot_run(run_id: str) -> Found:
    found = get_run(run_id)
    found = get_run(found.tags.get("pti.choice", found.id))
    if found.tags.get("pti.step") != "invert":
        raise UsageError(
            "E211", f"run '{found.name}' ({run_id}) is no inversion", "give a run of invert"
        )
    if found.status != "FINISHED":
        what = f"run '{found.name}' is {found.status.lower()}, not finished"
        raise UsageError("E251", what, "wait for it, or invert again")
    return found
