"""The journal: what was written is read, whatever happened to the process or the disk."""

import math
import resource
import signal
import threading
from binascii import crc32
from contextlib import contextmanager
from errno import ENOSPC

import pytest
from filelock import Timeout

from pti_pipeline.errors import ResourceError
from pti_pipeline.tracking import journal
from pti_pipeline.tracking.outbox import Outbox, UnsendableError, left_ones, outbox_root, take

RUN = "0123456789abcdef" * 2

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
    box = Outbox(tmp_path, RUN)
    for k in range(3):
        box.put("tags", {"k": str(k)})
    (_, mark), *_ = box.waiting()
    box.sent(mark)
    box.close()
    assert left_ones(tmp_path) == [RUN]
    again = take(tmp_path, RUN)
    assert [entry["value"]["k"] for entry, _ in again.waiting()] == ["1", "2"]
    assert [entry["to"] for entry, _ in again.waiting()] == [RUN, RUN]
    *_, (_, end) = again.waiting()
    again.sent(end)
    again.close()
    assert left_ones(tmp_path) == [] and not (tmp_path / RUN).exists()
    assert take(tmp_path, RUN) is None and not (tmp_path / RUN).exists()


def test_an_outbox_is_one_process_s(tmp_path):
    box = Outbox(tmp_path, RUN)
    with pytest.raises(Timeout):
        Outbox(tmp_path, RUN)
    assert take(tmp_path, RUN) is None and left_ones(tmp_path) == [RUN]
    thread = threading.Thread(target=box.close)  # as the sender may
    box.put("tags", {"a": "b"})
    thread.start()
    thread.join()
    take(tmp_path, RUN).close()


def test_marks_and_folders_that_make_no_sense_do_no_harm(tmp_path):
    box = Outbox(tmp_path, RUN)
    box.put("tags", {"a": "b"})
    box.close()
    for mark, waiting in (("", 1), ("x", 1), ("-7", 1), ("999999", 0)):
        (tmp_path / RUN / "sent").write_text(mark)
        again = take(tmp_path, RUN)
        assert sum(1 for _ in again.waiting()) == waiting
        again.put("tags", {"c": "d"})
        assert sum(1 for _ in again.waiting()) == waiting + 1
        again.close()
        (tmp_path / RUN / "journal.jsonl").write_bytes(
            (tmp_path / RUN / "journal.jsonl").read_bytes().splitlines(True)[0]
        )
    (tmp_path / ".DS_Store").write_text("")
    (tmp_path / "nonsense").mkdir()
    (tmp_path / "nonsense" / "journal.jsonl").write_text("")
    assert left_ones(tmp_path) == [RUN]


@pytest.mark.parametrize("name", ["../../x", "files/../../x", "/etc/hostname", "lock", "files/no"])
def test_an_entry_can_name_no_file_but_its_own(tmp_path, name):
    (tmp_path / "x").write_text("secret")
    box = Outbox(tmp_path / "a" / "b", RUN)
    own = box.new_file("own")
    own.write_text("x")
    assert box.file(own.relative_to(box.folder).as_posix()) == own.resolve()
    with pytest.raises(UnsendableError):
        box.file(name)
    box.close()


@contextmanager
def full_disk(at):
    """Let no file grow beyond some bytes, as a disk that is full."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, before)


def test_a_line_that_does_not_fit_is_not_there_at_all(path):
    whole = path.read_bytes()
    with full_disk(len(whole) + 9), pytest.raises(OSError, match="No space left") as caught:
        journal.append(path, ENTRIES[0])
    assert (caught.value.errno, caught.value.filename) == (ENOSPC, str(path))
    assert path.read_bytes() == whole


def test_a_full_disk_is_told_and_the_next_entry_is_whole(tmp_path):
    box = Outbox(tmp_path, RUN)
    with full_disk(300):
        with pytest.raises(ResourceError, match=r"E605.*No space left"):
            for k in range(10):
                box.put("tags", {"k": f"{k:050d}"})
        with pytest.raises(ResourceError, match="E605"):
            box.put("tags", {"k": f"{k:050d}"})
    box.put("tags", {"k": "last"})
    found = [int(e["value"]["k"]) for e, _ in list(box.waiting())[:-1]]
    assert found == list(range(len(found))) and len(found) == k
    assert [e["value"]["k"] for e, _ in box.waiting()][-1] == "last"
    box.close()


def test_each_store_has_its_own_outboxes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    uris = ["sqlite:///mlflow.db", f"sqlite:///{tmp_path}/other.db", "http://a:5000", "http://b/x"]
    uris += ["http://b-x", "postgresql://u:SECRET@h/d", "databricks"]
    roots = [outbox_root(uri) for uri in uris]
    assert len(set(roots)) == 7 and all(root.is_relative_to(tmp_path) for root in roots)
    assert not any("SECRET" in str(root) for root in roots)
    assert outbox_root("http://b/x/") == roots[3]
    assert outbox_root("postgresql://v:OTHER@h/d") == roots[5]
    assert outbox_root("sqlite:///mlflow.db?timeout=3") == roots[0]
    assert outbox_root(f"sqlite:///{tmp_path}/mlflow.db") == roots[0]


@pytest.mark.parametrize("text", [b"{", b"[]", b"5", b'"x"', b"null", b"[" * 99_999, b"\xff"])
def test_lines_with_a_right_checksum_that_are_no_entries_are_passed_over(path, text):
    with path.open("ab") as file:
        file.write(b"%08x %s\n" % (crc32(text), text))
    journal.append(path, ENTRIES[0])
    assert read(path) == [*ENTRIES, ENTRIES[0]]


def test_entries_that_do_not_say_what_goes_where_are_passed_over(tmp_path):
    box = Outbox(tmp_path, RUN)
    for entry in ({}, {"kind": 5, "to": RUN, "value": 1}, {"kind": "tags", "to": RUN}):
        journal.append(box.folder / "journal.jsonl", entry)
        journal.append(box.folder / "refused.jsonl", entry)
    assert list(box.waiting()) == [] and box.refused == [] and not box.ends
    box.put("tags", {"a": "b"})
    assert [entry["value"] for entry, _ in box.waiting()] == [{"a": "b"}]
    box.close()
