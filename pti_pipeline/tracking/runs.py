"""One MLflow run of one step: opened, written to in batches, and always ended."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from numpy.typing import NDArray

from pti_pipeline.errors import PtiError
from pti_pipeline.tracking.interruption import interruptible
from pti_pipeline.tracking.store import connect, experiment_id

EXPERIMENT = "pti"
"""Experiment of all runs, unless ``mlflow run --experiment-name`` says otherwise."""

BATCH = 1000
"""Metrics of one request: MLflow's own limit."""


class Run:
    """A run that is being written.

    Metrics wait in memory, with the time at which they were measured, and are sent in batches: a
    call for each would cost more than a training step.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.id = client, run_id
        self._waiting: list[Metric] = []

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at ``step``; one that is infinite is logged as NaN, which sorts last."""
        now = int(time.time() * 1000)
        for key, value in values.items():
            number = float(value)
            finite = number if math.isfinite(number) else math.nan
            self._waiting.append(Metric(key, finite, now, step))
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        while self._waiting:
            self.client.log_batch(self.id, metrics=self._waiting[:BATCH])
            del self._waiting[:BATCH]

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters that the run does not have yet: ``mlflow run`` logs its own, as typed."""
        there = self.client.get_run(self.id).data.params
        new = [Param(k, str(v)) for k, v in values.items() if k not in there]
        if new:
            self.client.log_batch(self.id, params=new)

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Set tags."""
        self.client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def log_image(self, key: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log a picture, (H, W, 3), to the image grid under ``key``."""
        self.client.log_image(self.id, picture, key=key, step=step)

    def log_figure(self, figure: Figure, path: str) -> None:
        """Log a matplotlib figure as artifact ``path``."""
        self.client.log_figure(self.id, figure, path)

    def log_text(self, text: str, path: str) -> None:
        """Log a text file as artifact ``path``."""
        self.client.log_text(self.id, text, path)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or a folder's files, under ``folder``."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)


@contextmanager
def open_run(
    name: str, params: Mapping[str, object], tags: Mapping[str, object], own: bool = True
) -> Iterator[Run]:
    """Open a run for one step and end it whatever happens.

    Parameters
    ----------
    name : str
        Says what the run is, e.g. ``"invert lr=0.005 seed=0"``.
    params, tags : mapping
        Logged at the start; empty tags are left out.
    own : bool
        Continue the run that ``mlflow run`` made for this process, if there is one. A sweep's
        members don't: that run is the sweep's.

    Yields
    ------
    Run
        FINISHED at the end; FAILED after an exception, with its code and text as tags; KILLED
        after Ctrl-C or a termination signal.
    """
    client = connect()
    status = "FAILED"
    with interruptible() as interruption, interruption.held() as release:
        run = Run(client, _take(client, name, tags, own))
        try:
            release()  # not before: a run that was made and is not known here would stay open
            run.log_params(params)
            yield run
            run.flush()
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status, interruption.obeyed = "KILLED", True
            raise
        except Exception as error:
            code = error.code if isinstance(error, PtiError) else "E999"
            run.set_tags({"pti.error_code": code, "pti.error": str(error)[:4000]})
            raise
        finally:
            with interruption.held():
                if status != "FINISHED":
                    run.flush()
                client.set_terminated(run.id, status)


def _take(client: MlflowClient, name: str, tags: Mapping[str, object], own: bool) -> str:
    """Make a run, or take the one that ``mlflow run`` made for this process."""
    words = {key: str(value) for key, value in tags.items() if value not in ("", None)}
    given = os.environ.pop("MLFLOW_RUN_ID", None) if own else None
    if given:
        words["mlflow.runName"] = name
        client.log_batch(given, tags=[RunTag(*word) for word in words.items()])
        return given
    place = experiment_id(client, EXPERIMENT)
    return str(client.create_run(place, run_name=name, tags=_source() | words).info.run_id)


def _source() -> dict[str, str]:
    context: dict[str, Any] = mlflow.tracking.context.registry.resolve_tags()
    return {k: str(v) for k, v in context.items()}
