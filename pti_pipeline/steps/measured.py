"""Measurements that a study keeps: its next evaluation need not draw the same pictures again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, from_numpy

from pti_pipeline.errors import ModelError
from pti_pipeline.meter import Measured
from pti_pipeline.tracking.find import fetch, find_runs
from pti_pipeline.tracking.run import Run

FOLDER = "measured"
CLASS = "class"
"""Name of the class word's measurement; a character's is its run's id."""


def keep(run: Run, name: str, measured: Measured) -> None:
    """Log a measurement with the evaluation that made it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.safetensors"
        save_measured(measured, path)
        run.log_artifact(path, FOLDER)


def kept(
    study: str, params: Mapping[str, object], tags: Mapping[str, object]
) -> dict[str, Measured]:
    """Measurements of a study's earlier evaluations, by name.

    Parameters
    ----------
    study : str
        Run id; an evaluation outside of any study starts anew.
    params, tags : mapping
        Of the evaluation to come: those of the earlier ones must be the same.
    """
    found: dict[str, Measured] = {}
    for run in find_runs(step="evaluate", study=study) if study else []:
        same = all(run.params.get(key) == str(value) for key, value in params.items())
        if same and all(run.tags.get(key) == str(value) for key, value in tags.items()):
            with TemporaryDirectory() as folder:
                try:
                    files = fetch(run, FOLDER, Path(folder)).glob("*.safetensors")
                except ModelError:  # it ended before its first measurement
                    continue
                found |= {file.stem: known for file in files if (known := load_measured(file))}
    return found


def save_measured(measured: Measured, path: Path) -> None:
    """Write a measurement as one file."""
    parts = {"plain": measured.plain, "edits": measured.edits}
    tensors = {f"{part}/{k}": v.contiguous() for part, d in parts.items() for k, v in d.items()}
    tensors["grid"] = from_numpy(measured.grid.copy())
    save_file(tensors, path, {"bank": json.dumps(measured.bank)})


def load_measured(path: Path) -> Measured | None:
    """Read what :func:`save_measured` wrote; None of a file that is not whole."""
    parts: dict[str, dict[str, Tensor]] = {"plain": {}, "edits": {}, "": {}}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118
                part, _, key = name.rpartition("/")
                parts[part][key] = file.get_tensor(name)
            bank = json.loads(file.metadata()["bank"])
        return Measured(parts["plain"], parts["edits"], bank, parts[""]["grid"].numpy())
    except Exception:  # whatever a spoiled file makes of its reader
        return None
