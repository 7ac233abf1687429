"""A training's weights as MLflow's logged model, with the numbers that belong to it.

``mlflow.search_logged_models`` then finds weights by what was measured of them.
"""

from __future__ import annotations

from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from pti_pipeline.settings import TrainSettings
from pti_pipeline.tracking.extras import best_effort
from pti_pipeline.tracking.runs import Run
from pti_pipeline.tracking.store import connect

MODEL = "pti.logged_model"
"""Tag of a run: the id of its logged model."""


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
    with best_effort("logged model"):
        client = connect()
        model = client.create_logged_model(
            client.get_run(run.id).info.experiment_id,
            name=kind,
            source_run_id=run.id,
            params={key: str(getattr(settings, key)) for key in ("lr", "seed", "steps")},
            tags={"pti.artifact": path, "mlflow.model.isExternal": "true"},
            model_type=kind,
        )
        output = LoggedModelOutput(model.model_id, settings.steps)
        client.log_outputs(run.id, [output])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        run.set_tags({MODEL: model.model_id})
