"""Sends what an outbox holds to the tracking store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking.multimedia import compress_image_size
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_LOGGED_IMAGES
from PIL import Image, UnidentifiedImageError

from pti_pipeline.tracking.image_grid import FOLDER, pictures
from pti_pipeline.tracking.journal import Entry
from pti_pipeline.tracking.outbox import Outbox, UnsendableError
from pti_pipeline.tracking.store import FINAL

BATCH = 1000
"""Metrics of one request: MLflow's own limit."""
REFUSED = (400, 404, 413, 414, 422)
"""Statuses of a server's, or a proxy's, answer to an upload that will not change."""
MODEL = "pti.logged_model"
"""Tag of a run: the id of its weights' logged model."""
EXTRAS = ("dataset", "model")
"""Kinds of entries that a run is as good without: what is refused of them is a line of warning."""
MANY = ("metrics", "params", "tags")
"""Kinds of entries that hold several values."""
LOST = ("pti.error_code", "pti.error")
"""Tags that a run was taken for dead with."""


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
    """Send an entry; of values that are refused together, find those that are refused alone."""
    try:
        SENDERS.get(entry["kind"], _unknown)(client, entry["to"], entry["value"], box)
    except (MlflowException, OSError, UnsendableError) as error:
        if entry["kind"] in EXTRAS and isinstance(error, MlflowException) and _reached(error):
            why = str(error).splitlines()[0][:120]
            logging.getLogger(__name__).warning("The run has no %s (%s).", entry["kind"], why)
            return
        if not _final(error):
            raise
        parts = _parts(entry)
        for part in parts:
            _send(client, part, box)
        if not parts:
            box.refuse(entry, (str(error).splitlines() or [repr(error)])[0])


def _final(error: Exception) -> bool:
    """Whether asking again will not change the answer."""
    if isinstance(error, MlflowException):
        return error.error_code in FINAL
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in REFUSED or isinstance(error, UnsendableError | UnidentifiedImageError)


def _reached(error: MlflowException) -> bool:
    """Whether it was the store itself that would not."""
    return error.error_code in (*FINAL, "BAD_REQUEST")


def _parts(entry: Entry) -> list[Entry]:
    """What can be sent apart of an entry; nothing of a single value."""
    value = entry["value"]
    if entry["kind"] == "addition":
        return [{**entry, "kind": kind, "value": value[kind]} for kind in value]
    halves = _halves(value) if entry["kind"] in MANY else []
    return [{**entry, "value": half} for half in halves]


def _halves(value: Any) -> list[Any]:
    """Two parts of several values, a list's or a mapping's; none of a single one."""
    if len(value) < 2:
        return []
    if isinstance(value, list):
        return [value[: len(value) // 2], value[len(value) // 2 :]]
    return [dict(part) for part in _halves(list(value.items()))]


def _joined(waiting: Iterable[tuple[Entry, int]]) -> Iterator[tuple[Entry, int]]:
    """Join metrics of one run that follow each other, as many as a request can hold."""
    for (kind, to), group in groupby(waiting, lambda item: (item[0]["kind"], item[0]["to"])):
        if kind != "metrics":
            yield from group
            continue
        rows: list[Any] = []
        mark = 0
        for entry, end in group:
            if rows and len(rows) + len(entry["value"]) > BATCH:
                yield {"kind": kind, "to": to, "value": rows}, mark
                rows = []
            rows, mark = [*rows, *entry["value"]], end
        yield {"kind": kind, "to": to, "value": rows}, mark


def _metrics(client: MlflowClient, run_id: str, rows: Any, box: Outbox) -> None:
    client.log_batch(run_id, metrics=[Metric(*row) for row in rows], synchronous=True)


def _addition(client: MlflowClient, run_id: str, value: Mapping[str, Any], box: Outbox) -> None:
    """Log numbers and tags of another run at once: by the tags one knows that it has the rest."""
    metrics = [Metric(*row) for row in value["metrics"]]
    tags = [RunTag(*item) for item in value["tags"].items()]
    client.log_batch(run_id, metrics=metrics, tags=tags, synchronous=True)


def _params(client: MlflowClient, run_id: str, values: Mapping[str, str], box: Outbox) -> None:
    """Log parameters that the run does not have yet: ``mlflow run`` logs its own, as typed."""
    there = client.get_run(run_id).data.params
    new = [Param(*item) for item in values.items() if item[0] not in there]
    if new:
        client.log_batch(run_id, params=new, synchronous=True)


def _tags(client: MlflowClient, run_id: str, values: Mapping[str, str], box: Outbox) -> None:
    client.log_batch(run_id, tags=[RunTag(*item) for item in values.items()], synchronous=True)


def _image(client: MlflowClient, run_id: str, value: Mapping[str, Any], box: Outbox) -> None:
    """Log a picture, unless the process that had sent it died before it knew."""
    key, step, time = value["key"], value["step"], value["time"]
    there = [p for p in pictures(client, run_id) if (p.key, p.step, p.time) == (key, step, time)]
    with Image.open(box.file(value["file"])) as picture:
        if not there:
            client.log_image(run_id, picture, None, key, step, time, synchronous=True)
        elif not any(p.small for p in there):  # it died between the two files
            _log_small(client, run_id, compress_image_size(picture), there[0].path)


def _log_small(client: MlflowClient, run_id: str, picture: Image.Image, path: str) -> None:
    """Log the copy of a picture that the grid shows, as ``log_image`` does."""
    with TemporaryDirectory() as folder:
        small = Path(folder) / f"{PurePosixPath(path).stem}+compressed.webp"
        picture.save(small)
        client.log_artifact(run_id, str(small), FOLDER)
    client.set_tag(run_id, MLFLOW_LOGGED_IMAGES, True)


def _artifact(client: MlflowClient, run_id: str, value: Mapping[str, Any], box: Outbox) -> None:
    path = box.file(value["file"])
    if path.is_dir():
        client.log_artifacts(run_id, str(path), value["folder"])
    else:
        client.log_artifact(run_id, str(path), value["folder"])


def _end(client: MlflowClient, run_id: str, value: Mapping[str, Any], box: Outbox) -> None:
    """End a run; if it was taken for dead meanwhile, it was not."""
    if client.get_run(run_id).data.tags.get(LOST[0]) == "E905":
        for tag in LOST:
            client.delete_tag(run_id, tag)
    client.set_terminated(run_id, value["status"], value["time"])


def _dataset(client: MlflowClient, run_id: str, value: Mapping[str, str], box: Outbox) -> None:
    tags = [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
    client.log_inputs(run_id, [DatasetInput(Dataset(**value), tags)])


def _model(client: MlflowClient, run_id: str, value: Mapping[str, Any], box: Outbox) -> None:
    """Make a logged model of weights that a run holds, unless it has one."""
    run = client.get_run(run_id)
    if MODEL in run.data.tags:
        return
    place, own = [run.info.experiment_id], f"source_run_id = '{run_id}'"
    made = client.search_logged_models(place, own)  # by a process that died before it said so
    model = (
        made[0]
        if made
        else client.create_logged_model(
            run.info.experiment_id,
            name=value["kind"],
            source_run_id=run_id,
            params=value["params"],
            tags={"pti.artifact": value["path"], "mlflow.model.isExternal": "true"},
            model_type=value["kind"],
        )
    )
    if model.model_id not in {each.model_id for each in run.outputs.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, value["step"])])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.set_tag(run_id, MODEL, model.model_id)


def _unknown(client: MlflowClient, run_id: str, value: Any, box: Outbox) -> None:
    raise UnsendableError("this version of pti can't send it")


SENDERS: Mapping[str, Callable[[MlflowClient, str, Any, Outbox], None]] = {
    "addition": _addition,
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "image": _image,
    "artifact": _artifact,
    "dataset": _dataset,
    "model": _model,
    "end": _end,
}
