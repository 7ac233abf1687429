"""Commands in processes forked from a warm server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from pti_pipeline.studies.processes import run_command
from pti_pipeline.tracking.find import find_runs

IMAGES = Path(__file__).parents[2] / "examples" / "mochi"


def test_a_command_runs_in_another_process_and_tells_its_exit_code(store, capfd):
    assert run_command(["select", "--run=nonsense"]) == 2
    assert "error[E210]" in capfd.readouterr().err
    assert run_command(["--version"]) == 0
    assert "pti" in capfd.readouterr().out


def test_each_command_has_the_environment_of_its_moment(store, capfd, monkeypatch):
    assert run_command(["select", "--run=nonsense"]) == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/other.db")
    assert run_command(["select", "--run=nonsense"]) == 2
    assert (store / "other.db").is_file()


def test_a_study_that_is_stopped_leaves_no_run_and_no_process(store):
    words = ["main", f"--images={IMAGES}", "--steps=1000000", "--sample-every=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pti_pipeline", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not find_runs(step="invert"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    finally:
        process.kill()
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left
    assert {run.status for run in find_runs()} == {"KILLED"}
