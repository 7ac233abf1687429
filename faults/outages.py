"""Runs that log while the tracking store is away, for up to half an hour of a clock that runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from faults.places import forked
from pti_pipeline.tracking import runs, sender
from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.store import connect

MINUTES = (0.1, 0.5, 1, 2, 5, 10, 30)
"""Lengths of the outages."""
SPEED = 600
"""Seconds of the fast clock in one of ours."""
POINTS = 200
"""Numbers logged before, during and after each outage."""


class Flickering:
    """A client of a store that is there, or is not."""

    def __init__(self, client: MlflowClient) -> None:
        self.client, self.away, self.refused = client, False, 0

    def __getattr__(self, name: str) -> Any:
        if self.away and name in ("log_batch", "log_artifact", "set_terminated", "get_run"):
            self.refused += 1
            raise MlflowException("connection refused", TEMPORARILY_UNAVAILABLE)
        return getattr(self.client, name)


def measure(long: bool) -> dict[str, float]:
    """Let the store go away for each of :data:`MINUTES`, in the long form three times."""
    with TemporaryDirectory() as folder:
        return forked(Path(folder), lambda: _outages(MINUTES * (3 if long else 1)))


def _outages(lengths: tuple[float, ...]) -> dict[str, float]:
    flickering = Flickering(connect())
    with (
        fast_clock(),
        patch.object(runs, "connect", lambda: flickering),
        open_run("outages", {}, {"pti.step": "x"}) as run,
    ):
        for number, minutes in enumerate(lengths):
            for part, away in enumerate((False, True, False)):
                flickering.away, before = away, flickering.refused
                for i in range(POINTS):
                    run.log_metrics({"x": i}, (number * 3 + part) * POINTS + i)
                run.flush()
                time.sleep(minutes * 60 / SPEED if away else 0.01)
                while away and flickering.refused == before:  # it has not been noticed yet
                    time.sleep(0.01)
        run.wait(3600)
    history = connect().get_metric_history(run.id, "x")
    seen = Counter(point.step for point in history)
    expected = range(len(lengths) * 3 * POINTS)
    return {
        "outages": len(lengths),
        "longest_minutes": max(lengths),
        "refused_calls": flickering.refused,
        "lost_points": sum(step not in seen for step in expected),
        "doubled_points": sum(n - 1 for n in seen.values()),
        "unfinished": float(get_run(run.id).status != "FINISHED"),
    }


@contextmanager
def fast_clock() -> Iterator[None]:
    """Let the sender's clock run :data:`SPEED` times as fast."""
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() * SPEED, sleep=time.sleep, time=time.time
    )
    with patch.object(sender, "time", clock):
        yield
