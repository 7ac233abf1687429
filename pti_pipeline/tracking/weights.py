"""A training's weights as MLflow's logged model, with the numbers that belong to it.

``mlflow.search_logged_models`` then finds weights by what was measured of them.
"""

from __future__ import annotations

from pti_pipeline.settings import TrainSettings
from pti_pipeline.tracking.run import Run


def log_weights(run: Run, kind: str, path: str, settings: TrainSettings) -> None:
    """Make a logged model of weights that are artifact ``path`` of a run; never fail.

    The files stay where they are: the model is told by its run, and by its tags where in it.

    Parameters
    ----------
    run : Run
    kind : str
        ``"pivot"`` or ``"lora"``.
    path : str
    settings : TrainSettings
    """
    params = {key: str(getattr(settings, key)) for key in ("lr", "seed", "steps")}
    run.log_model({"kind": kind, "path": path, "params": params, "step": settings.steps})
