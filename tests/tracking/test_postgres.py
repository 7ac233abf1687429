"""Runs kept in PostgreSQL, as a server of a whole group has them."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from mlflow import MlflowClient

from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.outbox import outbox_root
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.store import store_uri

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not (shutil.which("initdb") and shutil.which("postgres")),
        reason="no PostgreSQL: apt-get install postgresql",
    ),
]


@pytest.fixture
def postgres(store, monkeypatch):
    """An empty database in a temporary folder, of an own server process."""
    pytest.importorskip("psycopg", reason="pip install pti-pipeline[postgres]")
    folder = store / "data"
    folder.mkdir()
    owner = {}
    if os.geteuid() == 0:  # it does not run as root
        for path in (folder, *list(folder.parents)[:-2]):
            path.chmod(path.stat().st_mode | 0o055)
        shutil.chown(folder, "nobody")
        owner = {"user": "nobody"}
    words = ["initdb", "-D", folder, "-U", "pti", "--auth=trust", "--no-sync"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **owner)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["postgres", "-D", folder, "-p", str(port), "-k", folder, "-c", "fsync=off"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, **owner) as process:
        deadline = time.monotonic() + 60
        while subprocess.run(["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        uri = f"postgresql+psycopg://pti@127.0.0.1:{port}/postgres"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("HOME", str(store))
        yield uri
        process.send_signal(signal.SIGINT)  # SIGTERM would wait for open connections


def test_runs_are_kept_found_and_ended(postgres):
    with open_run("r", {"lr": 0.1}, {"pti.step": "x", "pti.sweep": "s"}) as run:
        for step in range(2500):
            run.log_metrics({"a": step / 7, "b": -step}, step)
        run.log_text("words", "note.md")
    (found,) = find_runs(step="x", sweep="s")
    assert found == get_run(run.id)
    assert found.status == "FINISHED" and found.params == {"lr": "0.1"}
    history = MlflowClient().get_metric_history(run.id, "a")
    assert [(m.step, m.value) for m in history] == [(step, step / 7) for step in range(2500)]
    assert os.listdir(outbox_root(store_uri())) == []
