"""The journal: what was written is read, whatever happened to the process or the disk."""

import math

import pytest
from filelock import Timeout

from pti_pipeline.tracking import journal
from pti_pipeline.tracking.outbox import Outbox, left_outboxes, outbox_root

ENTRIES = [{"kind": "metrics", "value": [["a", 0.1 + k, 1700000000000, k]]} for k in range(5)]


@pytest.fixture
def path(tmp_path):
    for entry in ENTRIES:
        journal.append(tmp_path / "journal.jsonl", entry)
    return tmp_path / "journal.jsonl"


def read(path, start=0):
    return [entry for entry, _ in journal.read(path, start)]


def test_what_was_written_is_read_from_any_mark(path):
    assert read(path) == ENTRIES
    marks = [mark for _, mark in journal.read(path)]
    assert marks[-1] == path.stat().st_size
    for k, mark in enumerate(marks, 1):
        assert read(path, mark) == ENTRIES[k:]
    journal.append(path, {"value": [math.nan, "ü\n"]})
    last = read(path)[-1]["value"]
    assert math.isnan(last[0]) and last[1] == "ü\n"
    assert read(path.with_name("nothing")) == []


def test_a_line_cut_short_anywhere_is_dropped_and_does_not_spoil_the_next(path):
    whole = path.read_bytes()
    start = whole.rfind(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert read(path) == ENTRIES[:-1]
        journal.mend(path)
        journal.append(path, ENTRIES[0])
        assert read(path) == [*ENTRIES[:-1], ENTRIES[0]]


def test_a_spoiled_byte_costs_its_line_alone(path):
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    end = whole.index(b"\n", second)
    for place in range(second, end):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1
        path.write_bytes(spoiled)
        found = read(path)
        # a new line in the middle makes two spoiled ones
        assert found == [ENTRIES[0], *ENTRIES[2:]]


def test_an_outbox_goes_on_where_it_was_and_is_gone_when_all_was_sent(tmp_path):
    box = Outbox(tmp_path, "r")
    for k in range(3):
        box.put("tags", {"k": str(k)})
    (_, mark), *_ = box.waiting()
    box.sent(mark)
    box.close()
    (again,) = left_outboxes(tmp_path)
    assert [entry["value"]["k"] for entry, _ in again.waiting()] == ["1", "2"]
    assert [entry["to"] for entry, _ in again.waiting()] == ["r", "r"]
    *_, (_, end) = again.waiting()
    again.sent(end)
    again.close()
    assert list(left_outboxes(tmp_path)) == [] and not (tmp_path / "r").exists()


def test_an_outbox_is_one_process_s(tmp_path):
    box = Outbox(tmp_path, "r")
    with pytest.raises(Timeout):
        Outbox(tmp_path, "r")
    assert list(left_outboxes(tmp_path)) == []
    box.close()


def test_each_store_has_its_own_outboxes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    uris = ("sqlite:///mlflow.db", f"sqlite:///{tmp_path}/other.db", "http://a:5000", "http://b/x")
    roots = [outbox_root(uri) for uri in uris]
    assert len(set(roots)) == 4 and all(root.is_relative_to(tmp_path) for root in roots)
    assert outbox_root(f"sqlite:///{tmp_path}/mlflow.db") == roots[0]
