import math
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from mlflow import MlflowClient

from pti_pipeline.errors import DataError, UsageError
from pti_pipeline.tracking.find import find_runs, get_run, members
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.store import connect
from pti_pipeline.tracking.write import add_metrics, add_tags

HOLD = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have both ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pti_pipeline.tracking.runs import open_run
with open_run("held", {}, {"pti.step": "x"}) as run:
    run.log_metrics({"a": 1.0}, 1)
    print(run.id, flush=True)
    time.sleep(60)
"""


def test_every_point_is_stored_once_and_params_tags_kept(store):
    with open_run("r", {"lr": 0.1}, {"pti.step": "x", "pti.empty": ""}) as run:
        for step in range(700):
            run.log_metrics({"a": step, "b/c": 2.0 * step}, step)
    history = MlflowClient().get_metric_history(run.id, "b/c")
    assert [m.step for m in history] == list(range(700))
    found = get_run(run.id)
    assert found.status == "FINISHED" and found.params == {"lr": "0.1"}
    assert found.tags["pti.step"] == "x" and "pti.empty" not in found.tags
    assert found.metrics["a"] == 699


def test_infinite_metrics_are_nan(store):
    with open_run("r", {}, {"pti.step": "x"}) as run:
        run.log_metrics({"a": math.inf, "b": math.nan, "c": 1})
    values = {m: MlflowClient().get_metric_history(run.id, m)[0].value for m in "abc"}
    assert math.isnan(values["a"]) and math.isnan(values["b"]) and values["c"] == 1


def test_errors_end_the_run_failed_with_their_code(store):
    with pytest.raises(DataError), open_run("r", {}, {"pti.step": "x"}) as run:
        run.log_metrics({"a": 1.0})
        raise DataError("E301", "no folder", "make one")
    found = get_run(run.id)
    assert (found.status, found.tags["pti.error_code"]) == ("FAILED", "E301")
    assert found.metrics == {"a": 1.0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_run_killed(store, number):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        run_id = process.stdout.readline().strip()
        process.send_signal(number)
        assert process.wait(30) != 0
    found = get_run(run_id)
    assert found.status == "KILLED" and found.metrics == {"a": 1.0}


def test_the_run_of_mlflow_run_is_continued_with_its_own_params(store, monkeypatch):
    client = connect()
    made = client.create_run("0")
    client.log_param(made.info.run_id, "lr", "1e-3")
    client.log_param(made.info.run_id, "token", "'<a b>'")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    params = {"lr": 0.001, "token": "<a b>", "new": 1}
    with open_run("r", params, {"pti.step": "x"}) as run:
        assert run.id == made.info.run_id
        assert "MLFLOW_RUN_ID" not in os.environ
    logged = {"lr": "1e-3", "token": "'<a b>'", "new": "1"}
    assert client.get_run(run.id).data.params == logged
    assert get_run(run.id).params == {**logged, "token": "<a b>"}
    assert get_run(run.id).name == "r"


def test_members_do_not_take_the_sweeps_run(store, monkeypatch):
    made = connect().create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    with open_run("member", {}, {"pti.step": "x"}, own=False) as run:
        assert run.id != made.info.run_id


def test_pictures_feed_the_image_grid(store):
    with open_run("r", {}, {"pti.step": "x"}) as run:
        run.log_image("samples", np.zeros((8, 8, 3), np.uint8), 5)
    files = [f.path for f in MlflowClient().list_artifacts(run.id, "images")]
    assert any("samples%step%5" in name.replace("+", "%") for name in files)


def test_runs_are_found_by_tags_and_a_run_is_a_sweep_of_one(store):
    with open_run("s", {}, {"pti.step": "sweep", "pti.stage": "invert"}) as sweep:
        for name in ("a", "b"):
            tags = {"pti.step": "invert", "pti.sweep": sweep.id}
            with open_run(name, {"steps": 5}, tags, own=False):
                pass
    found = members(get_run(sweep.id))
    assert [r.name for r in found] == ["a", "b"]
    assert members(found[0]) == [found[0]]
    assert find_runs(step="nothing") == []
    add_metrics(found[0], {"x": 2.0})
    add_tags(found[0], {"pti.chosen": "yes"})
    again = get_run(found[0].id)
    assert again.metrics["x"] == 2.0 and again.tags["pti.chosen"] == "yes"
    assert MlflowClient().get_metric_history(again.id, "x")[0].step == 5


@pytest.mark.parametrize("run_id", ["nonsense", "../etc", "0" * 32])
def test_unknown_runs(store, run_id):
    with pytest.raises(UsageError) as caught:
        get_run(run_id)
    assert caught.value.code == "E210" and caught.value.exit_code == 2


def test_deleted_runs_are_refused(store):
    with open_run("r", {}, {"pti.step": "x"}) as run:
        pass
    MlflowClient().delete_run(run.id)
    with pytest.raises(UsageError, match="deleted"):
        get_run(run.id)


def test_four_processes_may_meet_on_a_fresh_store(store):
    (store / "mlflow.db").unlink()
    code = "from pti_pipeline.tracking.store import connect; connect()"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    results = [(p.communicate(timeout=120)[1], p.returncode) for p in processes]
    assert [code for _, code in results] == [0] * 4, results


@pytest.mark.parametrize(
    ("logged", "read"),
    [
        ("'<mochi>'", "<mochi>"),
        ("'it'\"'\"'s'", "it's"),
        ("''", ""),
        ("0.005", "0.005"),
        ("'open", "'open"),
        ("a 'b' c", "a 'b' c"),
    ],
)
def test_params_are_read_without_the_quotes_that_mlflow_run_logs(store, logged, read):
    with open_run("r", {"token": logged}, {"pti.step": "x"}) as run:
        pass
    assert get_run(run.id).params["token"] == read


OTHER = "import sqlite3; sqlite3.connect('mlflow.db', timeout=0).execute('BEGIN IMMEDIATE')"


def test_opening_the_store_again_lets_go_of_no_lock(store):
    """Else what this process writes at that moment is rolled back by whoever reads next."""
    connect()
    with closing(sqlite3.connect("mlflow.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        connect()
        done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True)
    assert "database is locked" in done.stderr
