"""Registered versions: found by alias or number, fetched, and checked against their hashes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pti_pipeline.bundle import BUNDLE_FILE
from pti_pipeline.errors import ModelError
from pti_pipeline.hashes import check_hashes, file_hashes
from pti_pipeline.tracking.find import HASH
from pti_pipeline.tracking.store import connect

URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")
OWN = ("registered_model_meta",)
"""What MLflow adds to a version's files when it downloads them."""
HINT = "write models:/<name>@champion; the UI's Models page lists names"


def fetch_bundle(uri: str, folder: Path) -> Path:
    """Download the bundle of a registered version.

    Parameters
    ----------
    uri : str
        ``models:/<name>@<alias>`` or ``models:/<name>/<version>``.
    folder : Path

    Raises
    ------
    ModelError
        If there is no such version, it is not one of ours, or a file of it is not what was
        registered.
    """
    version = _find(uri)
    hashes = {k.removeprefix(HASH): v for k, v in version.tags.items() if k.startswith(HASH)}
    if not hashes:
        raise ModelError("E408", f"'{uri}' holds no character", "give one that pti registered")
    place = f"models:/{version.name}/{version.version}"
    try:
        files = Path(mlflow.artifacts.download_artifacts(place, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise ModelError(
            "E408", f"the files of '{uri}' are gone ({_first(error)})", HINT
        ) from error
    for cache in list(files.rglob("__pycache__")):
        shutil.rmtree(
            cache
        )  # Python leaves it in a local store when MLflow runs the version's code
    found = {path: value for path, value in file_hashes(files).items() if path not in OWN}
    check_hashes(f"'{uri}', version {version.version}", hashes, found)
    bundles = [path.parent for path in files.glob(f"artifacts/*/{BUNDLE_FILE}")]
    if len(bundles) != 1:
        raise ModelError("E408", f"'{uri}' holds no character", "give one that pti registered")
    return bundles[0]


def _find(uri: str) -> ModelVersion:
    """Return the version that ``uri`` names; else raise ``ModelError``."""
    parts = URI.fullmatch(uri)
    if parts is None:
        raise ModelError("E408", f"'{uri}' names no registered version", HINT)
    client, name = connect(), parts["name"]
    try:
        if parts["alias"]:
            return client.get_model_version_by_alias(name, parts["alias"])
        return client.get_model_version(name, parts["number"])
    except MlflowException as error:
        raise ModelError("E408", _absent(client, uri, name, error), HINT) from error


def _absent(client: MlflowClient, uri: str, name: str, error: MlflowException) -> str:
    """Say what a model has instead of the version that was asked for."""
    try:
        model = client.get_registered_model(name)
    except MlflowException:
        return f"no registered version '{uri}' ({_first(error)})"
    aliases = ", ".join(sorted(model.aliases)) or "none"
    return f"no registered version '{uri}': the aliases of '{name}' are {aliases}"


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:100]
