"""Reads what runs logged over time: histories, sample grids, dates, and where the UI shows them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import mlflow
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pti_pipeline.errors import ModelError
from pti_pipeline.tracking.addresses import run_address, server_address
from pti_pipeline.tracking.find import Found, fetch
from pti_pipeline.tracking.image_grid import pictures
from pti_pipeline.tracking.store import answering, connect

SAMPLES = "samples"
"""Key of a training's sample grids."""


def history(run: Found, key: str) -> dict[int, float]:
    """Values of a metric by step; of a step logged twice, the later value."""
    if key not in run.metrics:
        return {}
    logged = connect().get_metric_history(run.id, key)
    return {m.step: m.value for m in sorted(logged, key=lambda m: (m.step, m.timestamp))}


def sample_grids(run: Found, folder: Path) -> dict[int, NDArray[np.uint8]]:
    """Sample grids of a training by step, (H, W, 3); those that can't be read are left out."""
    with answering():
        listed = pictures(connect(), run.id)
    grids = {}
    for picture in listed:
        if picture.key != SAMPLES or picture.small:
            continue
        try:
            with Image.open(fetch(run, picture.path, folder / run.id)) as image:
                grids[picture.step] = np.asarray(image.convert("RGB"))
        except (ModelError, OSError):
            continue
    return grids


def span(run: Found) -> tuple[datetime, datetime | None]:
    """When a run began and ended, in local time; None while it goes on."""
    info = connect().get_run(run.id).info
    ended = info.end_time and datetime.fromtimestamp(info.end_time / 1000).astimezone()
    return datetime.fromtimestamp(info.start_time / 1000).astimezone(), ended or None


def ui_link(run: Found) -> str:
    """Address of a run in the MLflow UI, without credentials; empty where no server is used."""
    experiment = connect().get_run(run.id).info.experiment_id
    server = server_address(mlflow.get_tracking_uri())
    return run_address(server, experiment, run.id) if server else ""
