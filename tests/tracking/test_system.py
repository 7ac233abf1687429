import threading
import time

import pytest

from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.system import watched


def threads():
    """Those of this process, but for the sender, which ends by itself."""
    return {thread for thread in threading.enumerate() if thread.name != "pti-sender"}


def watch(seconds):
    before = threads()
    with open_run("r", {}, {"pti.step": "x"}) as run, watched(run):
        time.sleep(seconds)
        during = threads() - before
    return during, threads() - before, get_run(run.id)


@pytest.fixture(autouse=True)
def often(experiment, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")


def test_the_machine_is_watched_and_no_thread_is_left():
    during, after, run = watch(2)
    assert len(during) == 1 and after == set()
    assert run.status == "FINISHED"
    names = {name for name in run.metrics if name.startswith("system/")}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= names


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    during, after, run = watch(0.5)
    assert during == after == set() and run.metrics == {}


def test_a_training_that_fails_leaves_no_thread():
    before = threads()
    with pytest.raises(RuntimeError), open_run("r", {}, {"pti.step": "x"}) as run, watched(run):
        raise RuntimeError
    assert threads() == before
    assert get_run(run.id).status == "FAILED"
