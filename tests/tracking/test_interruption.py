"""Signals at bad moments: none of them leaves a run open."""

import os
import signal

import pytest
from mlflow import MlflowClient

from pti_pipeline.tracking.find import find_runs
from pti_pipeline.tracking.members import open_runs
from pti_pipeline.tracking.runs import open_run


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
@pytest.mark.parametrize(
    ("method", "call"),
    [("create_run", 1), ("create_run", 3), ("log_batch", 2), ("set_terminated", 1)],
)
def test_a_signal_at_any_call_to_the_store_leaves_no_run_open(
    store, monkeypatch, method, call, number, raised
):
    original, calls = getattr(MlflowClient, method), 0

    def interrupted(*args, **kwargs):
        nonlocal calls
        calls += 1
        done = original(*args, **kwargs)
        if calls == call or (calls > call and number == signal.SIGTERM):  # sent until obeyed
            os.kill(os.getpid(), number)  # it has happened in the store, and is not known here
        return done

    monkeypatch.setattr(MlflowClient, method, interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored
    try:
        with (
            pytest.raises(raised),
            open_run("outer", {}, {"pti.step": "x"}),
            open_runs("abc", [{"lr": 1}] * 3, [{"pti.step": "x"}] * 3, False),
        ):
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls >= call
    statuses = {run.status for run in find_runs(step="x")}
    assert statuses <= {"KILLED", "FINISHED"} and "KILLED" in statuses


def test_a_block_that_a_second_signal_cuts_off_leaves_no_failed_run(store):
    """It comes while the first's exception is on its way: the block's exit is then not reached."""
    block = open_run("cut off", {}, {"pti.step": "x"})
    block.__enter__()
    del block
    assert [run.status for run in find_runs(step="x")] == ["KILLED"]
