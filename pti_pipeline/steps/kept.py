"""A character's files and what is told of its trainings, for files that leave the house."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE, unseal
from pti_pipeline.errors import UsageError
from pti_pipeline.steps.packing import find_bundle
from pti_pipeline.tracking.find import Found, get_run
from pti_pipeline.tracking.read import span

SETTINGS = ("lr", "steps", "seed", "batch_size", "optimizer", "regularizer")
"""What exported files tell of a training, beside its distances."""

DISTANCES = ("lr_x_steps", "delta_norm", "path", "relative", "angle", "function")
"""Those that are told; others follow from them."""


@dataclass(frozen=True)
class Kept:
    """A character's files, and where they come from.

    Attributes
    ----------
    pivot : Path
    lora : Path or None
        None of a pivot alone.
    base, fingerprint : str
        Of the base model that it was trained on.
    run : Found or None
        That trained it; None if this store doesn't have it.
    """

    pivot: Path
    lora: Path | None
    base: str
    fingerprint: str
    run: Found | None


def find_kept(model: str, folder: Path) -> Kept:
    """Find a character's files; see :func:`pti_pipeline.steps.packing.find_bundle`."""
    bundle = find_bundle(model, folder)
    facts, lora = unseal(bundle), bundle / LORA_FILE
    return Kept(
        bundle / PIVOT_FILE,
        lora if lora.is_file() else None,
        facts["base"],
        facts["base_fingerprint"],
        _if_here(facts["run"]),
    )


def trainings(run: Found | None) -> tuple[dict[str, str], datetime | None]:
    """Settings and distances of a run and of the inversion before it, and when the run ended.

    Names are such as ``tuning.lr`` and ``inversion.distance.delta_norm``; the time is UTC.
    """
    if run is None:
        return {}, None
    ended = span(run)[1]
    date = ended and ended.astimezone(UTC)
    if run.tags["pti.step"] == "invert":
        return _told("inversion", run), date
    before = _if_here(run.tags.get("pti.pivot", ""))
    told = _told("inversion", before) if before else {}
    return {**told, **_told("tuning", run)}, date


def _told(stage: str, run: Found) -> dict[str, str]:
    told = {name: run.params[name] for name in SETTINGS if name in run.params}
    told["lr"] = f"{float(told['lr']):g}"  # as typed, it may be 5e-3
    told["steps_taken"] = run.tags.get("pti.stopped_step", told["steps"])
    for name in DISTANCES:
        value = run.metrics.get(f"distance/{name}", math.nan)
        told |= {f"distance.{name}": f"{value:.6g}"} if math.isfinite(value) else {}
    return {f"{stage}.{name}": value for name, value in {**told, "run": run.id}.items()}


def _if_here(run_id: str) -> Found | None:
    try:
        return get_run(run_id)
    except UsageError:
        return None
