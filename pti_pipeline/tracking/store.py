"""Where runs are kept: the tracking store, ready for several processes at once."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from filelock import FileLock

from pti_pipeline.errors import StoreError

DEFAULT = "sqlite:///mlflow.db"
"""Used unless ``MLFLOW_TRACKING_URI`` says otherwise; artifacts go to ``./mlruns``."""

# A dead server would hold each call for four minutes; a registry model may not unpickle anything.
for key, value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(key, value)

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

_uris: set[str] = set()


def store_uri() -> str:
    """Where runs are kept: ``MLFLOW_TRACKING_URI``, else :data:`DEFAULT`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT


def opened() -> bool:
    """Whether this process has opened a store: a fork of it would share its connections."""
    return bool(_uris)


def connect() -> MlflowClient:
    """Open the tracking store, making its database if there is none yet.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    uri = store_uri()
    mlflow.set_tracking_uri(uri)
    _uris.add(uri)
    try:
        with _alone(uri):
            client = MlflowClient()
            client.search_experiments(max_results=1)
    except MlflowException as error:
        raise StoreError(
            "E501",
            f"the tracking store {uri} does not answer ({str(error).splitlines()[0][:120]})",
            "start it, or unset MLFLOW_TRACKING_URI to use ./mlflow.db",
        ) from error
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of experiment ``name``, made if new; the one that ``mlflow run`` chose goes first."""
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return chosen
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _alone(uri: str) -> AbstractContextManager[object]:
    """Keep others out while a fresh database gets its tables: two makers break it for good."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))
