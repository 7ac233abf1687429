"""No training waits for the store, and what it logs reaches the store however that behaves."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pti_pipeline.cli import main
from pti_pipeline.errors import LockedError, ResourceError, StoreError
from pti_pipeline.tracking import life, lost, runs, sender
from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.lost import sync
from pti_pipeline.tracking.members import open_runs
from pti_pipeline.tracking.outbox import left_ones, outbox_root
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.store import connect, store_uri

pytestmark = pytest.mark.server


@pytest.fixture
def brisk(server, monkeypatch):
    """Requests that wait for seconds, not for a minute."""
    connect()  # the first answer takes longer: the server makes its database
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(sender, "LONGEST", 1.0)


@pytest.fixture
def impatient(brisk, monkeypatch):
    """Ends of runs that wait for seconds too."""
    monkeypatch.setattr(runs, "GRACE", 1.0)
    monkeypatch.setattr(runs, "PATIENCE", 1.0)


def wait_for_the_sender():
    """Wait until the thread is gone: it ends by itself when its runs have."""
    deadline = time.monotonic() + 20
    while "pti-sender" in {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def points(run_id, key="a"):
    """A metric's values by step, as they are in the store: also those that came twice."""
    return [(m.step, m.value) for m in MlflowClient().get_metric_history(run_id, key)]


def log(run, steps):
    for step in steps:
        run.log_metrics({"a": step / 7, "b": -step}, step)
        run.flush()


def test_all_kinds_of_entries_reach_a_server_with_proxied_artifacts(server):
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with open_run("r", {"lr": 0.1}, {"pti.step": "x"}) as run:
        log(run, range(1500))
        run.set_tags({"pti.outcome": "finished"})
        run.log_image("samples", picture, 3)
        run.log_text("words", "folder/note.md")
        run.log_artifact(Path(__file__), "files")
    found = get_run(run.id)
    assert points(run.id) == [(step, step / 7) for step in range(1500)]
    assert found.status == "FINISHED" and found.tags["pti.outcome"] == "finished"
    client = MlflowClient()
    assert [f.path for f in client.list_artifacts(run.id, "folder")] == ["folder/note.md"]
    assert client.list_artifacts(run.id, "files")[0].path == f"files/{Path(__file__).name}"
    assert len(client.list_artifacts(run.id, "images")) == 2  # one of them for the grid
    assert not outbox_root(store_uri()).joinpath(run.id).exists()


def test_training_is_not_held_up_by_a_server_that_hangs(server, brisk):
    """Time blocked, against a step of 44 ms (an inversion's on the embedded world)."""
    picture = np.zeros((48, 48, 3), np.uint8)
    with open_run("r", {}, {"pti.step": "x"}) as run:
        log(run, range(10))
        server.open.clear()
        clock = time.perf_counter()
        for step in range(10, 1010):
            run.log_metrics({f"m{k}": k * step for k in range(12)}, step)
            if step % 50 == 0:
                run.flush()
            if step % 250 == 0:
                run.log_image("samples", picture, step)
        blocked = time.perf_counter() - clock
        server.open.set()
    assert blocked < 0.01 * 1000 * 0.044
    assert len(points(run.id, "m11")) == 1000 and len(points(run.id)) == 10


def test_a_server_that_is_stopped_and_started_loses_nothing_and_doubles_nothing(
    server, brisk, capfd
):
    with open_run("r", {}, {"pti.step": "x"}) as run:
        log(run, range(100))
        server.stop()
        log(run, range(100, 300))
        time.sleep(1.5)
        server.start()
        log(run, range(300, 400))
    assert points(run.id) == [(step, step / 7) for step in range(400)]
    told = capfd.readouterr().err
    assert told.count("does not answer") == 1 and told.count("answers again") == 1


AWAY = """
import sys, time
from pti_pipeline.tracking import runs, sender
runs.GRACE = runs.PATIENCE = 1.0
from pti_pipeline.cli import main
from pti_pipeline.errors import StoreError
from pti_pipeline.tracking.members import open_runs
from pti_pipeline.tracking.runs import open_run
try:
    with open_run("r", {}, {"pti.step": "x"}) as run:
        print(run.id, flush=True)
        input()  # the server goes away
        for step in range(200):
            run.log_metrics({"a": step / 7}, step)
            run.flush()
        run.log_text("words", "note.md")
except StoreError as error:
    sys.exit(str(error))
"""


def test_what_a_server_missed_is_told_and_sent_later(server, capfd):
    words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", AWAY], text=True, **words) as process:
        run_id = process.stdout.readline().strip()
        time.sleep(1)
        server.stop()
        told = process.communicate("\n", timeout=60)[1].splitlines()
    assert re.match(r"error\[E502\]: .*pti sync", told[-1])
    assert all("training goes on" in line for line in told[:-1]) and len(told) < 3
    server.start()
    assert get_run(run_id).status == "RUNNING"
    with pytest.raises(SystemExit) as ended:
        main(["sync"])
    assert ended.value.code == 0
    assert int(capfd.readouterr().out.split(" entries sent")[0]) == 202  # the end is one too
    assert points(run_id) == [(step, step / 7) for step in range(200)]
    assert get_run(run_id).status == "FINISHED"
    assert MlflowClient().list_artifacts(run_id)[0].path == "note.md"
    assert left_ones(outbox_root(store_uri())) == []
    assert sync() == lost.Synced()


def test_the_store_s_trouble_is_waited_for_once_and_is_not_the_other_runs(server, impatient):
    clock = time.monotonic()
    tags = [{"pti.step": "x"}] * 6
    with pytest.raises(StoreError, match="E502"), open_runs("abcdef", [{}] * 6, tags, False) as six:
        server.stop()
        for run in six:
            log(run, range(10))
    assert time.monotonic() - clock < 10
    wait_for_the_sender()
    server.start()
    sync()
    assert {get_run(run.id).status for run in six} == {"FINISHED"}


def test_a_run_that_is_deleted_meanwhile_is_not_the_others_trouble(store, monkeypatch):
    monkeypatch.setattr(sender, "BEAT", 0.1)
    tags = [{"pti.step": "x"}] * 3
    with pytest.raises(StoreError, match="E503"), open_runs("abc", [{}] * 3, tags, False) as three:
        gone, *others = three
        log(gone, range(3))
        time.sleep(1)
        MlflowClient().delete_run(gone.id)
        for run in three:
            log(run, range(3, 9))
        time.sleep(1)
    for run in others:
        assert len(points(run.id)) == 6 and get_run(run.id).status == "FINISHED"
    assert sync().refused  # told again, as long as it is there


def test_sync_does_not_end_a_run_that_ends_meanwhile(store, monkeypatch):
    """The outbox that it has found goes away before it is taken."""
    found = lost.left_ones

    def late(root):
        names = found(root)
        stack.close()
        return names

    with ExitStack() as stack:
        run = stack.enter_context(open_run("r", {}, {"pti.step": "x"}))
        monkeypatch.setattr(lost, "left_ones", late)
        assert sync().ended == ()
    assert get_run(run.id).status == "FINISHED"


def test_a_run_that_was_taken_for_dead_and_lives_is_well(store):
    with open_run("r", {}, {"pti.step": "x"}) as run:
        lost._end(connect(), run.id)
        assert get_run(run.id).tags["pti.error_code"] == "E905"
    found = get_run(run.id)
    assert found.status == "FINISHED" and "pti.error_code" not in found.tags


def test_a_home_that_can_not_be_written_is_told_before_a_run_is_made(store, monkeypatch):
    (store / ".pti").write_text("in the way")
    with pytest.raises(ResourceError, match="E605"), open_run("r", {}, {"pti.step": "x"}):
        pass
    assert find_runs(step="x") == []


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("nonsense://x", "E504"),
        ("http://[bad", "E501"),
        ("postgresql+psycopg://u:SECRET@127.0.0.1:9/d", "E501"),
        ("http://u:SECRET@127.0.0.1:9", "E501"),
    ],
)
def test_stores_that_are_none_are_told_at_once_in_one_line(store, monkeypatch, uri, code):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    clock = time.monotonic()
    with pytest.raises(StoreError) as caught:
        connect()
    assert time.monotonic() - clock < 15
    assert caught.value.code == code and "SECRET" not in str(caught.value)


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_store(server, impatient, capfd):
    with pytest.raises(ZeroDivisionError), open_run("r", {}, {}) as run:
        log(run, range(10))
        server.open.clear()
        1 / 0  # noqa: B018
    assert "E502" in capfd.readouterr().err
    server.open.set()
    wait_for_the_sender()
    sync()
    assert get_run(run.id).status == "FAILED"


def test_what_the_store_refuses_is_told_and_the_rest_is_kept(store):
    with pytest.raises(StoreError, match="E503"), open_run("r", {}, {}) as run:
        log(run, range(5))
        run.log_metrics({"no such name: %": 1.0})
        run.flush()
        run.set_tags({"pti.outcome": "finished"})
    found = get_run(run.id)
    assert len(points(run.id)) == 5 and found.tags["pti.outcome"] == "finished"
    assert found.status == "FINISHED"


def test_a_server_that_is_down_or_hangs_at_the_start_is_told_within_15_seconds(server):
    server.open.clear()
    clock = time.monotonic()
    with pytest.raises(StoreError, match=r"E501.*does not answer"), open_run("r", {}, {}):
        pass
    assert time.monotonic() - clock < 15
    server.open.set()
    server.stop()
    clock = time.monotonic()
    with pytest.raises(StoreError, match=r"E501.*does not answer"), open_run("r", {}, {}):
        pass
    assert time.monotonic() - clock < 15
    server.start()


def test_no_thread_is_left_behind(store):
    with open_run("r", {}, {}), open_run("s", {}, {}, own=False):
        assert "pti-sender" in {thread.name for thread in threading.enumerate()}
    wait_for_the_sender()


def test_a_database_that_another_process_locks_holds_no_training_up(store):
    with open_run("r", {}, {}) as run:
        other = sqlite3.connect(store / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        clock = time.monotonic()
        for step in range(100):
            run.log_metrics({"a": step}, step)
            run.flush()
        assert time.monotonic() - clock < 1
        assert not run.wait(0.5)
        other.execute("ROLLBACK")
        other.close()
    history = MlflowClient().get_metric_history(run.id, "a")
    assert [(m.step, m.value) for m in history] == [(i, i) for i in range(100)]


def test_two_writers_of_one_run_are_one_too_many(store, monkeypatch):
    with open_run("r", {}, {}) as run:
        monkeypatch.setenv("MLFLOW_RUN_ID", run.id)
        with pytest.raises(LockedError, match="E701") as caught, open_run("again", {}, {}):
            pass
    assert caught.value.exit_code == 7 and get_run(run.id).status == "FINISHED"


KILLED = """
import os, signal, sys
from pti_pipeline.tracking import sender
sender.deliver = lambda *_: None  # nothing is sent before the end
from pti_pipeline.tracking.members import open_runs
from pti_pipeline.tracking.runs import open_run
with open_run("killed", {"lr": 0.1}, {"pti.step": "x"}) as run:
    for step in range(100):
        run.log_metrics({"a": step / 7}, step)
    run.flush()
    print(run.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_logged_is_sent_and_its_run_is_ended(store):
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_id = done.stdout.strip()
    assert get_run(run_id).status == "RUNNING" and not points(run_id)
    with open_run("another", {}, {"pti.step": "x"}):  # which must not be ended
        assert sync().ended == ("killed",)
        assert sync() == lost.Synced(used=1)
    found = get_run(run_id)
    assert (found.status, found.tags["pti.error_code"]) == ("FAILED", "E905")
    assert points(run_id) == [(step, step / 7) for step in range(100)] and found.params["lr"]
    assert [run.status for run in find_runs(step="x")] == ["FAILED", "FINISHED"]


def test_runs_of_other_machines_are_ended_when_their_heart_has_stopped(store, monkeypatch):
    client = connect()
    tags = {"pti.step": "x", life.HEARTBEAT: str(int(time.time()))}
    place = client.create_experiment("pti")
    silent = client.create_run(place, run_name="silent", tags=tags).info.run_id
    assert sync().ended == ()
    monkeypatch.setattr(life, "DEAD", -1)
    assert sync().ended == ("silent",)
    assert get_run(silent).status == "FAILED"


def test_a_run_shows_signs_of_life(store, monkeypatch):
    monkeypatch.setattr(sender, "BEAT", 0.2)
    with open_run("r", {}, {}) as run:
        first = get_run(run.id).tags[life.HEARTBEAT]
        deadline = time.monotonic() + 20
        while get_run(run.id).tags[life.HEARTBEAT] == first:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert int(first) <= time.time()


WRITER = """
from pti_pipeline.tracking.members import open_runs
from pti_pipeline.tracking.runs import open_run
with open_run("writer", {}, {"pti.step": "x"}) as run:
    for step in range(1000):
        run.log_metrics({"a": step / 7}, step)
        if step % 50 == 49:
            run.flush()
"""


@pytest.mark.slow
def test_eight_writers_of_a_thousand_points_lose_none_on_sqlite(store):
    connect()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    told = [(w.communicate(timeout=300)[1], w.returncode) for w in writers]
    assert [code for _, code in told] == [0] * 8, told
    found = find_runs(step="x")
    assert len(found) == 8 and {run.status for run in found} == {"FINISHED"}
    for run in found:
        assert points(run.id) == [(step, step / 7) for step in range(1000)]
    assert os.listdir(outbox_root(store_uri())) == []
