"""What is kept out of the registry, and how it is forced in."""

import math
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registered import write_run, write_sweep

from pti_pipeline.cli import main
from pti_pipeline.errors import DivergedError, ModelError, UsageError
from pti_pipeline.steps.gate import find_candidate, refusal
from pti_pipeline.steps.register import register
from pti_pipeline.studies.main import register as register_of_study
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.tracking.runs import open_run

pytestmark = pytest.mark.usefixtures("registry_store")
SURE = {"leak/pivot_p": 1e-4, "leak/class_p": 1e-4}


def test_what_was_not_measured_is_registered_and_said(world):
    run = write_run(world, "<blank>", metrics={"leak/pivot_p": math.nan})
    result = CliRunner().invoke(main, ["register", f"--run={run}"])
    assert result.exit_code == 0, result.output
    assert "Beware: the leak was not measured." in result.output


@pytest.mark.parametrize(
    ("broken", "code", "exit_code", "why"),
    [
        ({"metrics": {"leak/pivot_p": 0.01}}, "E424", 4, "copies its pictures' positions"),
        ({"metrics": {"editability/relative": 0.3}}, "E910", 10, "collapsed: editability 0.30"),
        ({"metrics": {"reconstruction/bank_gain": -0.2}}, "E910", 10, "collapsed: bank loss"),
    ],
)
def test_what_leaks_or_collapsed_is_refused_unless_forced(world, broken, code, exit_code, why):
    token = f"<{code}{len(why)}>"
    run = write_run(world, token, **broken)
    before = len(find_runs(step="register"))
    result = CliRunner().invoke(main, ["register", f"--run={run}"])
    line = result.output.strip()
    assert result.exit_code == exit_code and line.startswith(f"error[{code}]: ")
    assert "\n" not in line and why in line and "--force=yes" in line
    assert len(find_runs(step="register")) == before
    with pytest.raises(MlflowException):
        MlflowClient().get_registered_model(token.strip("<>"))
    result = CliRunner().invoke(main, ["register", f"--run={run}", "--force=yes"])
    assert result.exit_code == 0 and "Beware: forced: " in result.output
    version = MlflowClient().get_model_version_by_alias(token.strip("<>"), "champion")
    assert version.tags["pti.gate"].startswith("forced: ") and why in version.tags["pti.gate"]
    assert "| gate | forced: " in version.description and why in version.description
    assert find_runs(step="register")[-1].params["force"] == "yes"


def test_a_run_that_a_sweep_chose_is_judged_by_all_of_its_seeds(world):
    """One seed's test fires by chance; the pooled one of the choice decides."""
    sweep, run = write_sweep(world, "<a>", metrics=SURE)
    assert refusal(find_candidate(sweep)) is None
    sweep, run = write_sweep(world, "<b>", choice={"leak_p": 0.01})
    assert refusal(find_candidate(run)).code == "E424"
    sweep, run = write_sweep(world, "<c>", sound="no")
    error = refusal(find_candidate(run))
    assert error.code == "E424" and "limit at distance 1.8" in str(error)


def test_a_tuning_around_a_pivot_that_leaks_is_refused(world):
    pivot = write_run(world, "<p>", "invert", metrics=SURE)
    run = write_run(world, "<p>", tags={"pti.pivot": pivot})
    with pytest.raises(ModelError, match=r"E424.*the pivot of 'finetune lr=0.001'.*positions"):
        register(run, "", "champion")


@pytest.mark.slow
def test_a_study_keeps_what_leaks_under_another_alias(world):
    register(write_run(world, "<s>"), "study", "champion")
    run = write_run(world, "<s>", seed=1, metrics=SURE)
    with open_run("study", {}, {"pti.step": "main"}) as study:
        plan = SimpleNamespace(name="study", alias="champion")
        made = register_of_study(plan, study.id, run)
    assert made.params["alias"] == "candidate" and made.tags["pti.gate"].startswith("forced: ")
    aliases = MlflowClient().get_registered_model("study").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {
        "champion": 1,
        "candidate": 2,
    }


def test_runs_that_hold_no_character(world):
    diverged = write_run(world, "<x>", files=False, tags={"pti.outcome": "diverged"})
    with pytest.raises(DivergedError, match="E910"):
        register(diverged, "", "champion", force=True)
    with open_run("study", {}, {"pti.step": "main"}) as run:
        pass
    with pytest.raises(UsageError, match="E215"):
        register(run.id, "", "champion")
    gone = write_run(world, "<x>")
    MlflowClient().delete_run(gone)
    with pytest.raises(UsageError, match=r"E210.*deleted"):
        register(gone, "", "champion")
    with pytest.raises(ModelError, match="E407"):
        register(write_run(world, "<x>", files=False), "", "champion")
    client = MlflowClient()
    open_one = client.create_run("0", tags={"pti.step": "finetune", "pti.token": "<x>"}).info.run_id
    with pytest.raises(UsageError, match=r"E251.*running"):
        register(open_one, "", "champion")
    client.set_terminated(open_one, "FAILED")
    with pytest.raises(UsageError, match=r"E251.*failed"):
        register(open_one, "", "champion")
