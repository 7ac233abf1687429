"""Runs that log while the tracking store is away, for up to half an hour of a fast clock.

The store is a real one, the client a wrapper round its client, which refuses calls; every second
one it passes on first, so that just the answer is lost: what was logged by it is then sent again.
The clock is the sender's own, and runs :data:`SPEED` times as fast.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.store import connect

MINUTES = (0.1, 0.5, 1, 2, 5, 10, 30)
"""Lengths of the outages."""
SPEED = 600
"""Seconds of the fast clock in one of ours."""
POINTS = 200
"""Numbers logged before, during and after each outage."""
CALLS = ("log_batch", "log_artifact", "set_terminated", "get_run")
"""What the sender asks of a store."""


class Flickering:
    """A client of a store that is there, or away: then all calls fail, every second after it ran.

    Attributes
    ----------
    away : bool
    refused, unanswered : int
        Calls that did not reach the store, and those whose answers were lost.
    """

    def __init__(self, client: MlflowClient) -> None:
        self.client, self.away, self.refused, self.unanswered = client, False, 0, 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        return partial(self._failed, call) if self.away and name in CALLS else call

    def _failed(self, call: Callable[..., Any], *args: Any, **options: Any) -> None:
        if self.refused > self.unanswered:
            call(*args, **options)
            self.unanswered += 1
        else:
            self.refused += 1
        raise MlflowException("connection lost", TEMPORARILY_UNAVAILABLE)


def measure(long: bool) -> dict[str, float]:
    """Let the store go away for each of :data:`MINUTES`, in the long form three times."""
    with TemporaryDirectory() as folder:
        return forked(Path(folder), lambda: outages(MINUTES * (3 if long else 1)))


def outages(lengths: tuple[float, ...]) -> dict[str, float]:
    """Log before, during and after outages of some minutes; count what the store then lacks."""
    flickering = Flickering(connect())
    with (
        fast_clock(),
        patch.object(runs, "connect", lambda: flickering),
        open_run("outages", {}, {"pti.step": "x"}) as run,
    ):
        for number, minutes in enumerate(lengths):
            for part, away in enumerate((False, True, False)):
                run.wait(3600)
                flickering.away, before = away, flickering.unanswered
                _log(run, (number * 3 + part) * POINTS, minutes * 60 / SPEED if away else 0.01)
                while away and flickering.unanswered == before:  # it was a short one
                    time.sleep(0.01)
                flickering.away = False
        run.wait(3600)
    history = connect().get_metric_history(run.id, "x")
    seen = Counter(point.step for point in history)
    return {
        "outages": len(lengths),
        "longest_minutes": max(lengths),
        "refused_calls": flickering.refused,
        "lost_answers": flickering.unanswered,
        "lost_points": sum(step not in seen for step in range(len(lengths) * 3 * POINTS)),
        "doubled_points": sum(n - 1 for n in seen.values()),
        "unfinished": float(get_run(run.id).status != "FINISHED"),
    }


def _log(run: Run, first: int, seconds: float) -> None:
    """Log :data:`POINTS` numbers from step ``first`` on, over some time."""
    for step in range(first, first + POINTS):
        run.log_metrics({"x": step}, step)
        if step % 10 == 9:
            run.flush()
            time.sleep(seconds * 10 / POINTS)


@contextmanager
def fast_clock() -> Iterator[None]:
    """Let the sender's clock run fast, and the end of a run wait for as long as ever.

    There are no signs of life, which go before all else: it is points that must be cut off.
    """
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() * SPEED, sleep=time.sleep, time=time.time
    )
    with (
        patch.object(sender, "time", clock),
        patch.object(sender, "BEAT", math.inf),
        patch.object(runs, "PATIENCE", runs.PATIENCE * SPEED),
    ):
        yield
