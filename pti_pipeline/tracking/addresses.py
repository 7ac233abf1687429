"""Where the MLflow UI shows runs: addresses of its pages on a server, ``http://host:port``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode, urlsplit

from pti_pipeline.tracking.presets import Preset

TRAINING = "workflowType=machine_learning"
"""Without it the UI shows the experiment as one of agents and chats."""


def server_address(uri: str) -> str:
    """Address of the server that a tracking URI names, without credentials; empty if none."""
    place = urlsplit(uri)
    if place.scheme not in ("http", "https"):
        return ""
    return f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path.rstrip('/')}"


def run_address(server: str, experiment: str, run: str) -> str:
    """Address of a run's page."""
    return f"{server}/#/experiments/{experiment}/runs/{run}"


def view_address(server: str, experiment: str, preset: Preset) -> str:
    """Address of an experiment's view."""
    words = urlencode({"viewStateShareKey": preset.key, "compareRunsMode": preset.mode})
    return f"{server}/#/experiments/{experiment}/runs?{words}&{TRAINING}"


def comparison_address(server: str, experiment: str, runs: Sequence[str]) -> str:
    """Address of the page that compares some runs."""
    ids, place = quote(json.dumps(list(runs))), quote(json.dumps([experiment]))
    return f"{server}/#/compare-runs?runs={ids}&experiments={place}&{TRAINING}"
