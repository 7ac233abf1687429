"""The model registry: a chosen character's files as a version that gives them back."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from pti_pipeline.errors import ModelError
from pti_pipeline.tracking.store import connect

SERVED = Path(__file__).with_name("served.py")
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")


def register(
    name: str,
    bundle: Path,
    run_id: str,
    prompt: str,
    tags: Mapping[str, object],
    description: str,
    alias: str,
) -> str:
    """Put a bundle into the registry and move an alias to it.

    Parameters
    ----------
    name : str
        Of the registered model.
    bundle : Path
        Folder as :mod:`pti_pipeline.bundle` describes.
    run_id : str
        Run that the bundle comes from; registering it again gives the version it has.
    prompt : str
        Shown as the input example.
    tags : mapping
        Of the version: the numbers of its choice.
    description : str
        Markdown.
    alias : str
        E.g. ``champion``.

    Returns
    -------
    str
        The version's number.
    """
    client = connect()
    version = _version_of(name, run_id)
    if version is None:
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name="character",
                python_model=str(SERVED),
                artifacts={"bundle": str(bundle)},
                signature=_signature(),
                input_example=(pd.DataFrame({"prompt": [prompt]}), {"seed": 0}),
                pip_requirements=[f"{library}=={_plain(library)}" for library in LIBRARIES],
            )
        version = str(mlflow.register_model(info.model_uri, name).version)
        client.update_model_version(name, version, description)
    for key, value in {**tags, "pti.run": run_id}.items():
        client.set_model_version_tag(name, version, key, str(value))
    client.set_registered_model_alias(name, alias, version)
    return version


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
        If there is no such version, or it is not one of ours.
    """
    connect()
    try:
        files = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise ModelError(
            "E408",
            f"no registered version '{uri}' ({str(error).splitlines()[0][:100]})",
            "write models:/<name>@champion; the UI's Models page lists names",
        ) from error
    found = next(files.glob("artifacts/*/bundle.json"), None)
    if found is None:
        raise ModelError("E408", f"'{uri}' holds no character", "give one that pti registered")
    return found.parent


def _version_of(name: str, run_id: str) -> str | None:
    try:
        versions = connect().search_model_versions(f"name='{name}'")
    except MlflowException:
        return None
    return next((str(v.version) for v in versions if v.tags.get("pti.run") == run_id), None)


def _signature() -> ModelSignature:
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.binary, "png")]),
        params=ParamSchema(
            [
                ParamSpec("seed", DataType.long, 0),
                ParamSpec("steps", DataType.long, 20),
                ParamSpec("guidance", DataType.double, 3.0),
            ]
        ),
    )


def _plain(library: str) -> str:
    return installed(library).split("+")[0]
