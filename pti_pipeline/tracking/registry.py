"""The model registry: a chosen character's files as a version that gives them back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from pti_pipeline.errors import UsageError
from pti_pipeline.hashes import file_hashes
from pti_pipeline.tracking.find import HASH
from pti_pipeline.tracking.store import alone, connect

SERVED = Path(__file__).with_name("served.py")
LIBRARIES = (
    "torch", "diffusers", "transformers", "peft", "safetensors",
    "numpy", "pandas", "pillow", "matplotlib", "scikit-image", "scipy", "filelock",
)  # fmt: skip
"""What the served code imports, pinned as it is here."""
NAME = re.compile(r"\w[\w.-]{0,63}")
ALIAS = re.compile(r"(?!(?:latest|v\d+)$)[\w-]{1,64}", re.IGNORECASE)


def check_names(name: str, alias: str) -> None:
    """Raise ``UsageError`` unless a model can be called ``name`` and a version ``alias``."""
    if not NAME.fullmatch(name):
        hint = "use letters, digits, _, - and ., 64 at most, not . or - first"
        raise UsageError("E252", f"no model can be called '{name}'", hint)
    if not ALIAS.fullmatch(alias):
        hint = "use letters, digits, _ and -, but not 'latest' or 'v1'"
        raise UsageError("E252", f"no alias can be called '{alias}'", hint)


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
        Of the registered model; see :func:`check_names`.
    bundle : Path
        Folder as :mod:`pti_pipeline.bundle` describes.
    run_id : str
        Run that the bundle comes from; registering it again gives the version it has, with the
        tags and the description of now.
    prompt : str
        Shown as the input example.
    tags : mapping
        Of the version: the numbers of its choice. The hashes of its files join them.
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
    words = {key: str(value) for key, value in {**tags, "pti.run": run_id}.items()}
    with alone("registry"):
        version = _version_of(client, name, run_id)
        if version is None:
            model, hashes = _log(client, bundle, run_id, prompt)
            version = _make_version(client, name, model, words | hashes, description)
        else:
            for key, value in words.items():
                client.set_model_version_tag(name, version, key, value)
            client.update_model_version(name, version, description)
        client.set_registered_model_alias(name, alias, version)
    return version


def _log(
    client: MlflowClient, bundle: Path, run_id: str, prompt: str
) -> tuple[LoggedModel, dict[str, str]]:
    """Log the model under its run; return it, and the hashes of its files as tags.

    ``log_model`` would do this too, but draw the input example at once, which takes minutes where
    there is no GPU, and open the run again.
    """
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, "character", run_id)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=_facts(model),
            python_model=str(SERVED),
            artifacts={"bundle": str(bundle)},
            signature=_signature(),
            input_example=(pd.DataFrame({"prompt": [prompt]}), {"seed": 0}),
            pip_requirements=[f"{library}=={_plain(library)}" for library in LIBRARIES],
        )
        hashes = {f"{HASH}{file}": value for file, value in file_hashes(path).items()}
        client.log_model_artifacts(model.model_id, str(path))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, "READY"), hashes


def _facts(model: LoggedModel) -> Model:
    """What its ``MLmodel`` says of where it belongs."""
    place, number = model.artifact_location, model.model_id
    return Model(place, model.source_run_id, model_uuid=number, model_id=number)


def _make_version(
    client: MlflowClient, name: str, model: LoggedModel, tags: Mapping[str, str], description: str
) -> str:
    """Make a version that has its tags from the start, of a model that is made if new."""
    with suppress(MlflowException):  # there is one, or else the next call says what is wrong
        client.create_registered_model(name)
    made = client.create_model_version(
        name,
        f"models:/{model.model_id}",
        model.source_run_id,
        dict(tags),
        description=description,
        model_id=model.model_id,
    )
    return str(made.version)


def _version_of(client: MlflowClient, name: str, run_id: str) -> str | None:
    try:
        versions = client.search_model_versions(f"name='{name}'")
    except MlflowException:
        return None
    return next((str(v.version) for v in versions if v.tags.get("pti.run") == run_id), None)


def _signature() -> ModelSignature:
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.long, "seed"), ColSpec(DataType.binary, "png")]),
        params=ParamSchema(
            [
                ParamSpec("seed", DataType.long, 0),
                ParamSpec("steps", DataType.long, 20),
                ParamSpec("guidance", DataType.double, 3.0),
                ParamSpec("count", DataType.long, 1),
            ]
        ),
    )


def _plain(library: str) -> str:
    return installed(library).split("+")[0]
