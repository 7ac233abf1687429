"""Where runs are kept: the tracking store, ready for several processes at once."""

from __future__ import annotations

import logging
import os
import re
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from filelock import FileLock

from pti_pipeline.errors import StoreError

EXPERIMENT = "pti"
"""Experiment of all runs, unless ``mlflow run --experiment-name`` says otherwise."""
KNOCK = 10.0
"""Seconds that a server has for its first answer."""
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Where databases listen, unless it is said."""
DEFAULT = "sqlite:///mlflow.db"
"""Used unless ``MLFLOW_TRACKING_URI`` says otherwise; artifacts go to ``./mlruns``."""

FINAL = (
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
)
"""Answers that asking again does not change."""

# A dead server would hold each call for four minutes.
for key, value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(key, value)
# Nothing here unpickles, so nobody needs the contrary: models from a registry may not run code.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

# It logs a stack for each error that is raised too, and told in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

_opened: set[str] = set()


def store_uri() -> str:
    """Where runs are kept: ``MLFLOW_TRACKING_URI``, else :data:`DEFAULT`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT


def opened() -> bool:
    """Whether this process has opened a store: a fork of it would share its connections."""
    return bool(_opened)


def connect() -> MlflowClient:
    """Open the tracking store, making its database if there is none yet.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    uri = store_uri()
    mlflow.set_tracking_uri(uri)
    _opened.add(uri)
    with answering():
        _knock(uri)
        with _alone(uri):
            client = MlflowClient()
            client.search_experiments(max_results=1)
    return client


@contextmanager
def answering() -> Iterator[None]:
    """Tell in one line that the store does not answer, or will not.

    Raises
    ------
    StoreError
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, HTTPException, OSError, ValueError) as error:
        why = str(error).splitlines()[0][:120]
        if getattr(error, "error_code", "") in FINAL:
            what = f"the tracking store {shown_uri()} refuses ({why})"
            raise StoreError("E504", what, "see what it says") from error
        what = f"the tracking store {shown_uri()} does not answer ({why})"
        hint = "start it, or unset MLFLOW_TRACKING_URI to use ./mlflow.db"
        raise StoreError("E501", what, hint) from error


def database(uri: str) -> Path | None:
    """File of a SQLite store; None of any other."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def local_folder(uri: str, purpose: str) -> Path:
    """Folder of what this machine keeps for a store: beside a SQLite database, else at home."""
    if path := database(uri):
        return path.absolute().parent / ".pti" / purpose / path.name
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]  # no password
    place = f"{parts.scheme}://{host}{parts.path.rstrip('/')}?{parts.query}"
    name = re.sub(r"[^\w.-]+", "-", host) or "store"
    return Path.home() / ".pti" / purpose / f"{name}-{sha256(place.encode()).hexdigest()[:12]}"


def shown_uri() -> str:
    """Where runs are kept, without a password."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", store_uri())


def _knock(uri: str) -> None:
    """Ask a server for any answer at all: MLflow itself tries for minutes.

    Who it is, and who asks, is MLflow's business: certificates and passwords play no part.
    """
    if (path := database(uri)) and path.exists():
        _look(path)  # MLflow itself tries for a minute
        return
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        try:
            health = f"{place.geturl().rstrip('/')}/health"
            urlopen(health, timeout=KNOCK, context=unchecked).close()  # noqa: S310 (http alone, above)
        except HTTPError:  # an answer too
            return
    elif parts.hostname and (port := parts.port or PORTS.get(parts.scheme.partition("+")[0])):
        socket.create_connection((parts.hostname, port), KNOCK).close()


def _look(path: Path) -> None:
    """Raise ``ValueError`` if what is there is no database.

    SQLite itself must look: whoever else closes the file lets go of all locks that this process
    has on it, and others then roll back what it is writing.
    """
    if not path.is_file():
        raise ValueError(f"'{path}' is no file")
    with closing(sqlite3.connect(path, timeout=0)) as database:
        try:
            database.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError:  # it is one that somebody writes
            pass
        except sqlite3.DatabaseError:
            raise ValueError(f"'{path}' is no SQLite database") from None


def alone(purpose: str) -> AbstractContextManager[object]:
    """Let one process at a time do something, where the store is a database of this machine."""
    return _alone(store_uri(), f".{purpose}")


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


def _alone(uri: str, purpose: str = "") -> AbstractContextManager[object]:
    """Keep others out, e.g. while a database gets its tables: two makers break it for good."""
    path = database(uri)
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}{purpose}.lock"))
