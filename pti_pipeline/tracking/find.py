"""Finds runs by id or by tag, and fetches their files."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from pti_pipeline.errors import ModelError, UsageError, printable
from pti_pipeline.hashes import check_hashes, file_hash
from pti_pipeline.tracking.store import EXPERIMENT, FINAL, answering, connect, experiment_id
from pti_pipeline.values import RUN_ID

HASH = "sha256."
"""Start of the tags that hold the hashes of a run's weights, or of a version's files."""


@dataclass(frozen=True)
class Found:
    """A run as it is in the store; ``metrics`` are the latest values, ``params`` without quotes."""

    id: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def get_run(run_id: str) -> Found:
    """Look a run up.

    Raises
    ------
    UsageError
        If there is none of this id, or it was deleted.
    """
    client = connect()
    hint = "copy a run id from the MLflow UI"
    if not RUN_ID.fullmatch(run_id):
        raise UsageError("E210", f"'{run_id}' is no run id", hint)
    with answering():
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise
            raise UsageError("E210", f"no run '{run_id}' in this store", hint) from None
    if run.info.lifecycle_stage == "deleted":
        raise UsageError("E210", f"run '{run_id}' was deleted", "restore it, or use another")
    return _found(run)


def check_study(run_id: str) -> None:
    """Raise ``UsageError`` unless a run id is empty, or that of a study."""
    if run_id and (found := get_run(run_id)).tags.get("pti.step") != "main":
        raise UsageError("E230", f"run '{found.name}' is no study", "give the id of a run of main")


def find_runs(**tags: str) -> list[Found]:
    """Runs that have all the given ``pti.`` tags, the oldest first; ``step="invert"`` for one."""
    return _search(" and ".join(f"tags.`pti.{key}` = '{value}'" for key, value in tags.items()))


def open_ones() -> list[Found]:
    """Runs of ours in any experiment that have not ended, or whose process died."""
    with answering():
        places = [each.experiment_id for each in connect().search_experiments()]
    words = "attributes.status = 'RUNNING'"
    return [run for run in _search(words, places) if "pti.step" in run.tags]


def members(run: Found) -> list[Found]:
    """Runs of a sweep given by its summary run; a run of one experiment is a sweep of one."""
    if run.tags.get("pti.step") != "sweep":
        return [run]
    return find_runs(sweep=run.id, step=run.tags["pti.stage"])


def fetch(run: Found, path: str, folder: Path) -> Path:
    """Download an artifact of a run, a file or a folder, into ``folder``.

    Raises
    ------
    ModelError
        If the run has none at ``path``, or weights are not those that it logged.
    """
    client = connect()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = Path(client.download_artifacts(run.id, path, str(folder)))
    except (MlflowException, OSError) as error:
        raise ModelError(
            "E407", f"run '{run.name}' ({run.id}) has no {path}", "give a finished run"
        ) from error
    _check(run, path, found)
    return found


def _check(run: Found, path: str, found: Path) -> None:
    """Raise ``ModelError`` if weights at or below ``path`` are not those that the run logged."""
    for key, expected in run.tags.items():
        name = key.removeprefix(HASH)
        if key.startswith(HASH) and PurePosixPath(name).is_relative_to(path):
            file = found / PurePosixPath(name).relative_to(path)
            known = {name: file_hash(file)} if file.is_file() else {}
            check_hashes(f"run '{run.name}' ({run.id})", {name: expected}, known)


def _search(words: str, places: Sequence[str] = ()) -> list[Found]:
    """All runs that a filter in MLflow's words lets through, the oldest first."""
    client, found, page = connect(), list[Found](), None
    with answering():
        ids, order = [*places] or [experiment_id(client, EXPERIMENT)], ["start_time ASC"]
        while page != "":
            few = client.search_runs(ids, words, order_by=order, page_token=page)
            found += map(_found, few)
            page = few.token or ""
    return found


def _unquoted(value: str) -> str:
    """Undo the shell's quotes: ``mlflow run`` logs a parameter as it stands in the command."""
    if value[:1] not in ("'", '"'):
        return value
    try:
        words = shlex.split(value)
    except ValueError:
        return value
    return words[0] if len(words) == 1 else value


def _found(run: MlflowRun) -> Found:
    return Found(
        id=run.info.run_id,
        name=printable(run.info.run_name),
        status=run.info.status,
        params={name: _unquoted(value) for name, value in run.data.params.items()},
        metrics=run.data.metrics,
        tags=run.data.tags,
    )
