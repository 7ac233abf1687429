"""What commands left in a tracking store and beside it, in a form that compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from pti_pipeline.tracking.image_grid import FOLDER, pictures
from pti_pipeline.tracking.store import connect

TIMED = ("train/pack_seconds_per_step", "small/samples_per_second")
"""Metrics that tell time, of which the steps compare but not the values."""
OWN = (
    "pti.heartbeat",
    "pti.host",
    "pti.place",
    "pti.logged_model",
    "pti.settings",
    "pti.sweep",
    "mlflow.",
)
"""Tags that no two runs share."""
KEPT = (".pti/outbox", ".pti/checkpoints", ".pti/attempts")
"""Folders in which nothing is left of what has ended."""


def trace(experiments: list[str]) -> dict[str, Any]:
    """Everything that compares of the runs of some experiments, by the runs' names.

    Returns
    -------
    dict
        ``runs``: for each, its status, parameters, tags, metrics by step, pictures and other
        files by their hashes. ``duplicates``: points, pictures, runs and logged models that are
        there more than once. ``left``: files that a finished run has no use for.
    """
    client = connect()
    found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
    names = Counter(run.info.run_name for run in found)
    runs = {run.info.run_name: _run(client, run) for run in found}
    extra = sum(n - 1 for n in names.values())
    return {
        "runs": runs,
        "duplicates": extra + sum(run.pop("duplicates") for run in runs.values()),
        "left": sorted(_left(Path.cwd())),
    }


def _run(client: MlflowClient, run: Run) -> dict[str, Any]:
    run_id, duplicates = run.info.run_id, 0
    points: dict[str, list[tuple[int, str]]] = {}
    for key in run.data.metrics:
        if key.startswith("system/"):
            continue
        history = client.get_metric_history(run_id, key)
        rows = [(p.step, "" if key in TIMED else float(p.value).hex()) for p in history]
        points[key] = sorted(rows)
        duplicates += len(rows) - len({step for step, _ in rows})
    drawn = pictures(client, run_id)
    shown = Counter((p.key, p.step, p.small) for p in drawn)
    duplicates += sum(n - 1 for n in shown.values())
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    inputs = len(run.inputs.dataset_inputs)
    return {
        "status": run.info.status,
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if not k.startswith(OWN)},
        "metrics": points,
        "pictures": {f"{p.key} {p.step} {p.small}": _pixels(client, run_id, p.path) for p in drawn},
        "files": dict(_files(client, run_id, "")),
        "models": len(models),
        "datasets": inputs,
        "duplicates": duplicates,
    }


def _pixels(client: MlflowClient, run_id: str, path: str) -> str:
    with Image.open(client.download_artifacts(run_id, path)) as image:
        return sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


def _files(client: MlflowClient, run_id: str, folder: str) -> Iterator[tuple[str, str]]:
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir and file.path != FOLDER:
            yield from _files(client, run_id, file.path)
        elif not file.is_dir:
            path = Path(client.download_artifacts(run_id, file.path))
            yield file.path, sha256(path.read_bytes()).hexdigest()


def _left(folder: Path) -> Iterator[str]:
    """Outboxes, checkpoints and half-written files."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        kept = (
            name.startswith((".pti/outbox", ".pti/checkpoints", ".pti/attempts")) and path.is_file()
        )
        if kept or path.name.startswith(".step-") or path.suffix in (".tmp", ".new"):
            yield name
