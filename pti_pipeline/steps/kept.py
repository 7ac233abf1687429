"""A character's files, wherever they are kept: a run, the registry or a bundle's folder."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pti_pipeline.bundle import BUNDLE_FILE, LORA_FILE, PIVOT_FILE
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.tracking.find import Found, fetch, get_run
from pti_pipeline.tracking.read import span
from pti_pipeline.tracking.registry import fetch_bundle

SETTINGS = ("lr", "steps", "seed", "batch_size", "regularizer")
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
    """Find a character's files, and bring them here if they are in the store.

    Parameters
    ----------
    model : str
        Run id of a finetune or invert run, or of a sweep that chose one;
        ``models:/<name>@<alias>`` or ``models:/<name>/<version>``; or a bundle's folder.
    folder : Path
        For what is downloaded.

    Raises
    ------
    UsageError, ModelError
        If there is no such thing, or it holds no character.
    """
    if model.startswith("models:/"):
        return _in_bundle(fetch_bundle(model, folder))
    if (Path(model) / BUNDLE_FILE).is_file():
        return _in_bundle(Path(model))
    if not re.fullmatch(r"[0-9a-fA-F]{32}", model):
        what = f"'{model}' is no registered model, no run id and no bundle's folder"
        raise UsageError("E216", what, "write models:/<name>@champion")
    found = get_run(model)
    found = get_run(found.tags.get("pti.choice", found.id))
    step = found.tags.get("pti.step")
    if step not in ("invert", "finetune"):
        hint = "give a run of finetune or invert, or a sweep that chose one"
        raise UsageError("E215", f"run '{found.name}' holds no character", hint)
    pivot = fetch(found, f"pivot/{PIVOT_FILE}", folder)
    lora = fetch(found, f"lora/{LORA_FILE}", folder) if step == "finetune" else None
    return Kept(pivot, lora, found.tags["pti.base"], found.tags["pti.base_fingerprint"], found)


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


def _in_bundle(folder: Path) -> Kept:
    try:
        facts = json.loads((folder / BUNDLE_FILE).read_text("utf-8"))
        base, fingerprint, run = (str(facts[k]) for k in ("base", "base_fingerprint", "run"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"can't read '{BUNDLE_FILE}' of this bundle ({error})"
        raise ModelError("E420", what, "register the run again") from error
    lora = folder / LORA_FILE
    return Kept(
        folder / PIVOT_FILE, lora if lora.is_file() else None, base, fingerprint, _if_here(run)
    )


def _if_here(run_id: str) -> Found | None:
    try:
        return get_run(run_id)
    except UsageError:
        return None
