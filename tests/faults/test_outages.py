"""A store that goes away loses and doubles nothing; ``python -m faults --part=outages`` is long."""

import time

import pytest
from mlflow.entities import Metric

from faults.outages import POINTS, outages
from faults.places import forked
from pti_pipeline.tracking import sending

LENGTHS = 0.1, 2.0


def test_outages_with_refused_calls_and_lost_answers_lose_and_double_nothing(store):
    found = forked(store, lambda: outages(LENGTHS))
    assert found.pop("refused_calls") >= 2 and found.pop("lost_answers") >= 2
    assert found == {
        "outages": 2,
        "longest_minutes": 2.0,
        "lost_points": 0,
        "doubled_points": 0,
        "unfinished": 0.0,
    }


def renewed(client, run_id, rows, box):
    """Send points with the time of sending, as one might."""
    now = time.time_ns() // 10**6
    points = [Metric(key, value, now, step) for key, value, _, step in rows]
    client.log_batch(run_id, metrics=points, synchronous=True)


def forgetful(client, run_id, rows, box):
    """Send half of the points."""
    sent = [Metric(*row) for row in rows[::2]]
    client.log_batch(run_id, metrics=sent, synchronous=True)


@pytest.mark.parametrize(
    ("fault", "counted"), [(renewed, "doubled_points"), (forgetful, "lost_points")]
)
def test_what_doubles_or_loses_points_is_counted(store, monkeypatch, fault, counted):
    monkeypatch.setitem(sending.SENDERS, "metrics", fault)
    found = forked(store, lambda: outages(LENGTHS[:1]))
    assert 0 < found[counted] <= 3 * POINTS
