"""What a pack's runs log, and when."""

import torch
from mlflow import MlflowClient

from pti_pipeline.inversion import Moment
from pti_pipeline.prefixes import share
from pti_pipeline.settings import InvertSettings
from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.members import Course, follow, metric_view, open_runs, recorded


def moments(steps, dies):
    """Two experiments' numbers; the second is frozen from step ``dies`` on."""
    for step in range(1, steps + 1):
        number = torch.tensor([float(step), -float(step)])
        alive = torch.tensor([True, step < dies])
        yield Moment(step, {"train/loss": number}, {"distance/log10": number}, alive, alive)


def steps_of(run, key):
    return [m.step for m in MlflowClient().get_metric_history(run.id, key)]


def test_derived_numbers_are_logged_at_every_tenth_step_and_the_last(store):
    with open_runs(["a", "b"], [{}, {}], [{"pti.step": "x"}] * 2, own=False) as runs:
        course = Course({}, {})
        assert len(list(recorded(runs, moments(73, dies=56), course))) == 73
    healthy, dead = runs
    assert course.frozen == {1: 56}
    assert steps_of(healthy, "train/loss") == list(range(1, 74))
    assert steps_of(dead, "train/loss") == list(range(1, 56))
    tens = [10, 20, 30, 40, 50]
    assert steps_of(healthy, "distance/log10") == [*tens, 60, 70, 73]
    assert steps_of(dead, "distance/log10") == [*tens, 55]
    assert get_run(dead.id).tags["pti.diverged_step"] == "56"
    assert get_run(healthy.id).metrics["distance/log10"] == 73


def test_a_training_ends_when_all_experiments_are_frozen(store):
    def dying():
        for step in range(1, 1000):
            number = {"train/loss": torch.zeros(1)}
            alive = torch.tensor([step < 3])
            yield Moment(step, number, {"train/lr": torch.zeros(1)}, alive, alive)

    with open_runs(["a"], [{}], [{"pti.step": "x"}], own=False) as runs:
        course = Course({}, {})
        assert len(list(recorded(runs, dying(), course))) == 50
    assert course.frozen == {0: 3}


def test_a_stopped_experiment_has_not_diverged_and_is_looked_at_where_it_ended(store):
    def stopping():
        for step in range(1, 1000):
            going = torch.tensor([step < 3])
            alive, number = torch.tensor([True]), {"train/loss": torch.zeros(1)}
            yield Moment(step, number, {"train/lr": torch.zeros(1)}, alive, going)

    with open_runs(["a"], [{}], [{"pti.step": "x"}], own=False) as runs:
        shared = share([InvertSettings(steps=999)])
        view = metric_view({10}, shared, lambda _: [{"twins/appearance": 0.5}])
        assert follow(runs, stopping(), "training", shared, [view]) == {}
    (run,) = runs
    assert steps_of(run, "train/loss") == [1, 2]
    assert steps_of(run, "twins/appearance") == [10, 50]
    found = get_run(run.id)
    assert (found.tags["pti.outcome"], found.tags["pti.stopped_step"]) == ("finished", "2")
