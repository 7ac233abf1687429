"""Adds to runs that have ended: an evaluation's numbers, a selection's verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Metric, RunTag

from pti_pipeline.tracking.find import Found
from pti_pipeline.tracking.sending import MODEL
from pti_pipeline.tracking.store import answering, connect


def add_metrics(run: Found, values: Mapping[str, float]) -> None:
    """Log numbers at the last step of a run's training, as those of its weights too."""
    now, step = int(time.time() * 1000), int(run.params.get("steps", 0))
    model = run.tags.get(MODEL)
    batch = [Metric(key, float(value), now, step, model) for key, value in values.items()]
    with answering():
        connect().log_batch(run.id, metrics=batch)


def add_tags(run: Found, values: Mapping[str, object]) -> None:
    """Set tags of a run."""
    tags = [RunTag(key, str(value)) for key, value in values.items()]
    with answering():
        connect().log_batch(run.id, tags=tags)


def add_files(run: Found, folder: Path, path: str) -> str:
    """Log a folder's files under ``path``; return where the store keeps them."""
    client = connect()
    with answering():
        client.log_artifacts(run.id, str(folder), path)
        return f"{client.get_run(run.id).info.artifact_uri}/{path}"
