"""Which runs of a sweep of tunings are sampled: those around where twins see positions start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import log10
from statistics import fmean

from pti_pipeline.choosing.bracket import deciding
from pti_pipeline.settings import FinetuneSettings
from pti_pipeline.tracking.find import Found

UNSAMPLED = (
    "not sampled, since twins see positions start at another distance "
    "(evaluate --deciding=0 samples all)"
)
OTHERS = tuple(f.name for f in fields(FinetuneSettings) if f.name not in ("lr", "steps", "seed"))
"""Settings of a tuning that give it a limit of its own."""


def bracketed(runs: Sequence[Found], count: int) -> tuple[list[Found], list[Found]]:
    """Runs at the places of a sweep that decide on its limit, and the others.

    A place is a learning rate and a number of steps: all of its seeds are taken or none.
    """
    gain = "twins/position"
    if any(r.tags["pti.step"] != "finetune" or gain not in r.metrics for r in runs):
        return list(runs), []
    places: dict[tuple[str, ...], list[Found]] = {}
    for run in runs:
        places.setdefault(tuple(run.params.get(k, "") for k in ("lr", "steps")), []).append(run)
    if len({tuple(r.params.get(k, "") for k in OTHERS) for r in runs}) > 1:
        return list(runs), []  # another setting was varied: each value has a limit of its own
    groups = list(places.values())
    far = [fmean(log10(r.metrics["distance/delta_norm"]) for r in group) for group in groups]
    gained = [fmean(r.metrics[gain] for r in group) for group in groups]
    chosen = deciding([10**x for x in far], gained, count)
    taken = [run for i in chosen for run in groups[i]]
    return taken, [run for run in runs if run not in taken]
