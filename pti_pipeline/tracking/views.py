"""Gives an experiment its views in the MLflow UI."""

from __future__ import annotations

import json
import time

from mlflow import MlflowClient

from pti_pipeline.tracking.extras import best_effort
from pti_pipeline.tracking.presets import PRESETS, Preset, encoded
from pti_pipeline.tracking.store import EXPERIMENT, connect, experiment_id

TAG = "mlflow.sharedViewState."
"""Prefix of the experiment's tags in which the UI looks for shared views."""


def write_views(experiment: str = "") -> None:
    """Write the views of an experiment, those that are missing or differ; never fail.

    Runs are as good without: whatever goes wrong is one line of warning.

    Parameters
    ----------
    experiment : str
        Id; that of this process's runs by default.
    """
    with best_effort("views"):
        client = connect()
        _write(client, experiment or experiment_id(client, EXPERIMENT))


def _write(client: MlflowClient, experiment: str) -> None:
    there = client.get_experiment(experiment).tags
    for preset in PRESETS:
        step = _last_step(client, experiment, preset) if preset.stage else 0
        facts = {"name": preset.name, "state": encoded(preset, step)}
        known = json.loads(there.get(TAG + preset.key, "{}"))
        if any(known.get(key) != value for key, value in facts.items()):
            now = int(time.time() * 1000)
            dates = {"createdAt": known.get("createdAt", now), "updatedAt": now}
            client.set_experiment_tag(experiment, TAG + preset.key, json.dumps(facts | dates))


def _last_step(client: MlflowClient, experiment: str, preset: Preset) -> int:
    """Step of the newest training's last sample grid: the UI shows grids of one step."""
    newest = client.search_runs([experiment], preset.filter, max_results=1)
    return int(newest[0].data.params.get("steps", 0)) if newest else 0
