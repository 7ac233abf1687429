from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus

from pti_pipeline.settings import InvertSettings
from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.weights import log_weights
from pti_pipeline.tracking.write import add_metrics


def test_weights_are_found_by_what_was_measured_of_them(experiment):
    runs = {}
    for lr, gain in ((0.001, 0.2), (0.01, 0.6)):
        with open_run("r", {"steps": 5}, {"pti.step": "invert"}) as run:
            log_weights(run, "pivot", "pivot/file", InvertSettings(lr, steps=5))
        add_metrics(get_run(run.id), {"reconstruction/bank_gain": gain})
        runs[lr] = run.id
    (best,) = MlflowClient().search_logged_models(
        [experiment], "metrics.`reconstruction/bank_gain` > 0.5"
    )
    assert best.source_run_id == runs[0.01] and best.params["lr"] == "0.01"
    assert (best.name, best.status) == ("pivot", LoggedModelStatus.READY)
    assert best.tags["pti.artifact"] == "pivot/file"
    (output,) = MlflowClient().get_run(runs[0.01]).outputs.model_outputs
    assert (output.model_id, output.step) == (best.model_id, 5)
    assert get_run(runs[0.01]).metrics["reconstruction/bank_gain"] == 0.6


def test_numbers_of_a_run_without_weights_are_the_runs_alone(experiment):
    with open_run("r", {"steps": 5}, {"pti.step": "sweep"}) as run:
        pass
    add_metrics(get_run(run.id), {"choice/distance": 2.0})
    assert get_run(run.id).metrics == {"choice/distance": 2.0}
    assert MlflowClient().search_logged_models([experiment]) == []
