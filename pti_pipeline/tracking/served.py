"""The registered model's code: MLflow runs this file when a version is loaded or served."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from PIL import Image

from pti_pipeline.bundle import draw_bundle, load_bundle
from pti_pipeline.settings import SampleSettings


class Character(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A prompt in, a PNG out; reads safetensors and JSON only."""

    def load_context(self, context: Any) -> None:
        """Load the bundle onto its base model."""
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Draw one picture for each row's ``prompt``; column ``png`` of the answer holds bytes."""
        chosen = {"seed": 0, "steps": 20, "guidance": 3.0, **(params or {})}
        prompts = [str(text) for text in model_input["prompt"]]
        how = SampleSettings(int(chosen["steps"]), float(chosen["guidance"]))
        seeds = [int(chosen["seed"])] * len(prompts)
        pictures = draw_bundle(self.bundle, prompts, seeds, how)
        return pd.DataFrame({"png": [_png(picture) for picture in pictures]})


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


mlflow.models.set_model(Character())
