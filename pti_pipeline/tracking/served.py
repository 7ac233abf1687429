"""The registered model's code: MLflow runs this file when a version is loaded or served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from pti_pipeline.bundle import load_bundles
from pti_pipeline.errors import ModelError, PtiError
from pti_pipeline.serving import answer, serve

USUAL = {"seed": 0, "steps": 20, "guidance": 3.0, "count": 1}
STATUS = {"E603": codes.DEADLINE_EXCEEDED, "E604": codes.RESOURCE_EXHAUSTED}
"""504 and 429; what the client asked wrongly is 400, what the model can't do 500."""


class Refused(MlflowException):  # type: ignore[misc]
    """An error whose reply is its one line: MLflow would put the request before it."""

    def __init__(self, error: PtiError) -> None:
        usual = codes.INTERNAL_ERROR if isinstance(error, ModelError) else codes.BAD_REQUEST
        super().__init__(str(error), STATUS.get(error.code, usual))
        self.line = str(error)

    def serialize_as_json(self) -> str:
        """Body of the server's reply."""
        return json.dumps({"error_code": self.error_code, "message": self.line})


class Character(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Prompts in, PNG files out; reads safetensors and JSON only."""

    def load_context(self, context: Any) -> None:
        """Load the bundle and its base model."""
        base, (bundle,) = load_bundles([Path(context.artifacts["bundle"])])
        self.served = serve(base, bundle)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Draw ``count`` pictures for each row's ``prompt``; ``png`` of the answer holds bytes."""
        prompts = [str(text) for text in model_input["prompt"]]
        try:
            drawn = answer(self.served, prompts, {**USUAL, **(params or {})})
        except PtiError as error:
            raise Refused(error) from None
        return pd.DataFrame(drawn, columns=["seed", "png"])


mlflow.models.set_model(Character())
