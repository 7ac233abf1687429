"""Commands in processes forked from a warm server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pti_pipeline.tracking.find import find_runs

IMAGES = Path(__file__).parents[2] / "examples" / "mochi"


def test_a_command_runs_in_another_process_and_tells_its_exit_code(store):
    """In the environment of its moment, from an interpreter of its own."""
    code = (
        "import os\n"
        "from pti_pipeline.studies.processes import run_command\n"
        "if __name__ == '__main__':\n"
        "    codes = [run_command(['--version'])]\n"
        f"    os.environ['MLFLOW_TRACKING_URI'] = 'sqlite:///{store}/other.db'\n"
        "    print(*codes, run_command(['select', '--run=nonsense']))"
    )
    (store / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("error[E210]")  # no library speaks up before it
    assert "pti, version" in done.stdout and "0 2" in done.stdout
    assert (store / "other.db").is_file()


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_study_that_is_stopped_leaves_no_process(store, how):
    """Killed, it can't end its own run, but its steps end theirs."""
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
        process.send_signal(how)
        assert process.wait(60) != 0
    finally:
        process.kill()
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left
    ended = find_runs() if how == signal.SIGTERM else find_runs(step="invert")
    assert {(run.status, run.tags.get("pti.error")) for run in ended} == {("KILLED", None)}
