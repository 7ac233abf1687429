"""Sends what an outbox holds to the tracking store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image

from pti_pipeline.tracking.journal import Entry
from pti_pipeline.tracking.outbox import Outbox
from pti_pipeline.tracking.store import FINAL

BATCH = 1000
"""Metrics of one request: MLflow's own limit."""


def deliver(client: MlflowClient, box: Outbox) -> None:
    """Send what waits in an outbox, in order; what the store refuses for good is set aside.

    Each piece is marked as sent when the store has it. Should the process die in between, it is
    sent again: metrics, parameters and tags are then what they were, since they carry their times.

    Raises
    ------
    mlflow.exceptions.MlflowException, OSError
        If the store does not answer; what was not sent still waits.
    """
    for entry, mark in _joined(box.waiting()):
        _send(client, entry, box)
        box.sent(mark)


def _send(client: MlflowClient, entry: Entry, box: Outbox) -> None:
    """Send an entry; of metrics that are refused together, find those that are refused alone."""
    value = entry["value"]
    try:
        SENDERS[entry["kind"]](client, entry["to"], value, box.folder)
    except (MlflowException, FileNotFoundError) as error:
        if getattr(error, "error_code", FINAL[0]) not in FINAL:
            raise
        if entry["kind"] == "metrics" and len(value) > 1:
            half = len(value) // 2
            for part in (value[:half], value[half:]):
                _send(client, {**entry, "value": part}, box)
        else:
            box.refuse(entry, str(error).splitlines()[0])


def _joined(waiting: Iterable[tuple[Entry, int]]) -> Iterator[tuple[Entry, int]]:
    """Join metrics of one run that follow each other, as many as a request can hold."""
    for (kind, to), group in groupby(waiting, lambda item: (item[0]["kind"], item[0]["to"])):
        if kind != "metrics":
            yield from group
            continue
        rows: list[Any] = []
        mark = 0
        for entry, end in group:
            if len(rows) + len(entry["value"]) > BATCH:
                yield {"kind": kind, "to": to, "value": rows}, mark
                rows = []
            rows, mark = [*rows, *entry["value"]], end
        yield {"kind": kind, "to": to, "value": rows}, mark


def _metrics(client: MlflowClient, run_id: str, rows: Any, folder: Path) -> None:
    client.log_batch(run_id, metrics=[Metric(*row) for row in rows])


def _params(client: MlflowClient, run_id: str, values: Mapping[str, str], folder: Path) -> None:
    """Log parameters that the run does not have yet: ``mlflow run`` logs its own, as typed."""
    there = client.get_run(run_id).data.params
    new = [Param(*item) for item in values.items() if item[0] not in there]
    if new:
        client.log_batch(run_id, params=new)


def _tags(client: MlflowClient, run_id: str, values: Mapping[str, str], folder: Path) -> None:
    client.log_batch(run_id, tags=[RunTag(*item) for item in values.items()])


def _image(client: MlflowClient, run_id: str, value: Mapping[str, Any], folder: Path) -> None:
    path = folder / value["file"]
    with Image.open(path) as picture:
        client.log_image(
            run_id, picture, key=value["key"], step=value["step"], timestamp=value["time"]
        )


def _artifact(client: MlflowClient, run_id: str, value: Mapping[str, Any], folder: Path) -> None:
    path = folder / value["file"]
    if path.is_dir():
        client.log_artifacts(run_id, str(path), value["folder"])
    else:
        client.log_artifact(run_id, str(path), value["folder"])


def _end(client: MlflowClient, run_id: str, value: Mapping[str, Any], folder: Path) -> None:
    client.set_terminated(run_id, value["status"], value["time"])


SENDERS: Mapping[str, Callable[[MlflowClient, str, Any, Path], None]] = {
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "image": _image,
    "artifact": _artifact,
    "end": _end,
}
