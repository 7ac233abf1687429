"""A character as a bundle's folder, wherever it is kept: a run, the registry, a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from pti_pipeline.bundle import BUNDLE_FILE, GRID_FILE, LORA_FILE, PIVOT_FILE, seal
from pti_pipeline.errors import UsageError
from pti_pipeline.steps.gate import Candidate, find_candidate
from pti_pipeline.tracking.find import fetch
from pti_pipeline.tracking.read import sample_grids
from pti_pipeline.tracking.versions import fetch_bundle
from pti_pipeline.values import RUN_ID
from pti_pipeline.weights import refuse_pickle


def find_bundle(model: str, folder: Path) -> Path:
    """Find a character's bundle, and bring it to ``folder``, which is made, if it is in the store.

    Parameters
    ----------
    model : str
        ``models:/<name>@<alias>`` or ``models:/<name>/<version>``; the run id of a finetune or
        invert run, or of a sweep that chose one; or a bundle's folder.
    folder : Path

    Raises
    ------
    UsageError, DivergedError, ModelError
        If there is no such thing, it holds no whole character, or files have changed.
    """
    if (Path(model) / BUNDLE_FILE).is_file():
        return Path(model)
    folder.mkdir()
    if model.startswith("models:/"):
        return fetch_bundle(model, folder)
    if RUN_ID.fullmatch(model):
        candidate = find_candidate(model)
        bundle = collect(candidate, folder)
        close(candidate, bundle)
        return bundle
    what = f"'{model}' is no registered model, no run id and no bundle's folder"
    raise UsageError("E216", what, "write models:/<name>@champion")


def collect(candidate: Candidate, folder: Path) -> Path:
    """Fetch a run's weights and last sample grid into ``folder/bundle``; seal it afterwards.

    Raises
    ------
    ModelError
        If the run lacks weights, or they may be a pickle.
    """
    run, bundle = candidate.run, folder / "bundle"
    bundle.mkdir()
    wanted = [f"pivot/{PIVOT_FILE}"]
    if run.tags["pti.step"] == "finetune":
        wanted.append(f"lora/{LORA_FILE}")
    for path in wanted:
        found = fetch(run, path, folder)
        refuse_pickle(found)
        shutil.copy(found, bundle)
    if grids := sample_grids(run, folder):
        Image.fromarray(grids[max(grids)]).save(bundle / GRID_FILE)
    return bundle


def close(candidate: Candidate, bundle: Path) -> None:
    """Write ``bundle.json``, once all other files are there."""
    run = candidate.run
    names = ("base", "base_fingerprint", "token", "initializer")
    seal(bundle, {name: run.tags[f"pti.{name}"] for name in names} | {"run": run.id})
