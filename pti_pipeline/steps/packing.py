"""A run's character as a bundle's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from pti_pipeline.bundle import GRID_FILE, LORA_FILE, PIVOT_FILE, seal
from pti_pipeline.steps.gate import Candidate
from pti_pipeline.tracking.find import fetch
from pti_pipeline.tracking.read import sample_grids


def collect(candidate: Candidate, folder: Path) -> Path:
    """Fetch a run's weights and last sample grid into ``folder/bundle``; seal it afterwards.

    Raises
    ------
    ModelError
        If the run lacks weights.
    """
    run, bundle = candidate.run, folder / "bundle"
    bundle.mkdir()
    shutil.copy(fetch(run, f"pivot/{PIVOT_FILE}", folder), bundle)
    if run.tags["pti.step"] == "finetune":
        shutil.copy(fetch(run, f"lora/{LORA_FILE}", folder), bundle)
    if grids := sample_grids(run, folder):
        Image.fromarray(grids[max(grids)]).save(bundle / GRID_FILE)
    return bundle


def close(candidate: Candidate, bundle: Path) -> None:
    """Write ``bundle.json``, once all other files are there."""
    run = candidate.run
    names = ("base", "base_fingerprint", "token", "initializer")
    seal(bundle, {name: run.tags[f"pti.{name}"] for name in names} | {"run": run.id})
