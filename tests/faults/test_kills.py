"""A training killed at random moments; ``python -m faults --part=kills`` kills all kinds."""

import os
import shutil
import signal
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from filelock import FileLock

from faults import killing
from faults.jobs import Job, train_world
from faults.killing import HUNG, Strike, run
from faults.kills import alone, killed, kills
from pti_pipeline.steps.world_training import loop
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.tracking.store import connect

WORLD = Job("world", train_world)


@pytest.fixture
def start(tmp_path, empty_store):
    folder = tmp_path / "start"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def struck(tmp_path, start):
    """What became of a job that was killed before some writes, by their shares of all."""

    def strike(command, *shares):
        whole = alone(Job("job", command), start, tmp_path)
        strikes = [Strike(write=int(share * whole.writes)) for share in shares]
        return killed(Job("job", command), whole, start, tmp_path / "place", strikes)

    return strike


def harmless(outcome):
    wrong = outcome.differences, outcome.corrupt, outcome.duplicates, outcome.left
    return wrong == ([], False, 0, [])


def test_world_trainings_killed_at_random_end_as_if_left_alone(tmp_path, start):
    found = list(kills([WORLD], start, tmp_path, 2))
    assert sum(bool(outcome.killed) for outcome in found) == 2
    assert all(harmless(outcome) for outcome in found)


def test_what_goes_on_is_killed_too(struck):
    outcome = struck(train_world, 0.5, 0.2)
    assert outcome.killed == 2 and harmless(outcome)


def forgetful():
    """Go on without the means of the gradients."""
    with patch.object(loop.Descent, "restore", lambda *_: None):
        train_world()


def test_a_training_that_goes_on_without_a_part_of_its_state_is_seen(struck):
    outcome = struck(forgetful, 0.5)
    assert outcome.killed == 1 and not outcome.corrupt
    assert any("small/loss" in line for line in outcome.differences)


def unwilling():
    """Do not go on."""
    if Path("world").exists():
        raise ValueError("there is something already")
    train_world()


def test_a_command_that_does_not_go_on_is_seen(struck):
    outcome = struck(unwilling, 0.5)
    assert outcome.corrupt and outcome.differences == ["all"]


def careless():
    """Log a point twice, and leave a file."""
    train_world()
    for moment in (1, 2):
        connect().log_metric(find_runs()[0].id, "x", 1.0, moment, 0)
    Path("world/state.tmp").touch()


def test_doubles_and_what_is_left_are_seen(struck):
    outcome = struck(careless)
    assert (outcome.killed, outcome.duplicates, outcome.left) == (0, 1, ["world/state.tmp"])


def test_kills_that_come_too_late_do_not_count(tmp_path, start, monkeypatch):
    monkeypatch.setattr("faults.kills._drawn", lambda *_: Strike(write=10**9))
    monkeypatch.setattr("faults.kills.TRIES", 2)
    found = list(kills([WORLD], start, tmp_path, 1))
    assert [outcome.killed for outcome in found] == [0, 0]
    assert all(harmless(outcome) for outcome in found)


def test_processes_end_by_themselves_or_by_a_kill_or_hang(tmp_path, monkeypatch):
    def writes():
        for name in "abc":
            Path(name).write_text("")

    assert run(writes, tmp_path) == (0, 3)
    for name in "abc":
        (tmp_path / name).unlink()
    assert run(writes, tmp_path, Strike(write=2)) == (-signal.SIGKILL, 2)
    assert (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    assert run(lambda: 1 // 0, tmp_path)[0] == 1
    assert run(lambda: time.sleep(9), tmp_path, Strike(seconds=1e-9))[0] == -signal.SIGKILL
    monkeypatch.setattr(killing, "PATIENCE", 0.2)
    assert run(lambda: time.sleep(9), tmp_path)[0] == HUNG


def test_what_is_killed_is_down_with_its_workers(tmp_path):
    def holds():
        if not os.fork():
            os.setpgid(0, 0)  # as if the disk held it when the others are killed
            with FileLock("lock"):
                Path("held").mkdir()
                time.sleep(0.5)
            os._exit(0)
        while not Path("held").exists():
            time.sleep(0.01)
        os.killpg(0, signal.SIGKILL)

    assert run(holds, tmp_path)[0] == -signal.SIGKILL
    with FileLock(tmp_path / "lock", timeout=0):
        pass
