"""An outbox: one process has it, and what it holds is there until the store has it."""

import os
import shutil
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock, Timeout
from full_disks import full_disk

from pti_pipeline.errors import ResourceError, StoreError
from pti_pipeline.tracking import journal
from pti_pipeline.tracking.outbox import (
    Outbox,
    UnsendableError,
    left_ones,
    outbox_root,
    take,
    tidy,
)

RUN = "0123456789abcdef" * 2


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
    assert len(set(roots)) == 7
    assert all(tmp_path / ".pti" / "outbox" in root.parents for root in roots)
    assert not any("SECRET" in str(root) for root in roots)
    assert outbox_root("http://b/x/") == roots[3]
    assert outbox_root("postgresql://v:OTHER@h/d") == roots[5]
    assert outbox_root("sqlite:///mlflow.db?timeout=3") == roots[0]
    assert outbox_root(f"sqlite:///{tmp_path}/mlflow.db") == roots[0]


def test_entries_that_do_not_say_what_goes_where_are_passed_over(tmp_path):
    box = Outbox(tmp_path, RUN)
    for entry in ({}, {"kind": 5, "to": RUN, "value": 1}, {"kind": "tags", "to": RUN}):
        journal.append(box.folder / "journal.jsonl", entry)
        journal.append(box.folder / "refused.jsonl", entry)
    assert list(box.waiting()) == [] and box.refused == [] and not box.ends
    box.put("tags", {"a": "b"})
    assert [entry["value"] for entry, _ in box.waiting()] == [{"a": "b"}]
    box.close()


def values(entries):
    return [entry["value"] for entry, _ in entries]


@pytest.mark.parametrize("name", ["", "../x", "a" * 31, "g" * 32, RUN + "/x"])
def test_run_ids_that_are_none_make_no_folder(tmp_path, name):
    told = rf"\[E504\].*run id '{name}'\. Hint: see if it is a store of MLflow's"
    with pytest.raises(StoreError, match=told):
        Outbox(tmp_path / "outbox", name)
    assert not (tmp_path / "outbox").exists()


def test_what_is_refused_stays_with_its_reason_until_it_is_tried_again(tmp_path):
    box = Outbox(tmp_path, RUN)
    box.put("tags", {"a": "b"}, to="f" * 32)
    ((entry, mark),) = box.waiting()
    box.refuse(entry, "too long")
    box.sent(mark)
    box.close()
    box.close()  # twice is once
    assert not box.open and left_ones(tmp_path) == [RUN]
    again = take(tmp_path, RUN)
    assert again.open and again.refused == ["too long"] and not values(again.waiting())
    again.retry()
    assert again.refused == []
    assert [dict(entry) for entry, _ in again.waiting()] == [entry]
    again.retry()  # with nothing refused
    assert values(again.waiting()) == [{"a": "b"}]
    again.close()


def test_it_says_whether_its_run_was_ended(tmp_path):
    box = Outbox(tmp_path, RUN)
    box.put("tags", {"end": "end"})
    assert not box.ends
    box.put("end", "FINISHED")
    box.put("tags", {"a": "b"})
    assert box.ends
    box.close()


def test_files_of_one_name_lie_apart(tmp_path):
    box = Outbox(tmp_path, RUN)
    one, other = box.new_file("x"), box.new_file("x")
    assert one != other and one.name == other.name == "x"
    with pytest.raises(UnsendableError, match=f"no file 'files/x' in {box.folder}"):
        box.file("files/x")
    box.close()
    assert not box.folder.exists()


def test_what_was_put_in_is_let_onto_the_disk(tmp_path, monkeypatch):
    told = []
    box = Outbox(tmp_path, RUN)
    monkeypatch.setattr(os, "fsync", lambda fd: told.append(os.readlink(f"/proc/self/fd/{fd}")))
    box.sync()
    assert told == [str(box.folder / "journal.jsonl")]
    box.close()


def test_emptied_folders_of_killed_processes_go_unless_they_are_in_use(tmp_path):
    for name in ("left", "used", "full"):
        (tmp_path / name / "files").mkdir(parents=True)
    (tmp_path / "full" / "journal.jsonl").touch()
    with FileLock(tmp_path / "used" / "lock"):
        tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "used"]


class Killed(BaseException):
    """The process ends here."""


def test_a_process_killed_while_it_removes_its_outbox_leaves_nothing_to_be_sent(
    tmp_path, monkeypatch
):
    def killed(*args, **kwargs):
        raise Killed

    box = Outbox(tmp_path, RUN)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", killed)
        box.close()
    box._lock.release()  # as the system does
    assert box.folder.is_dir() and left_ones(tmp_path) == [] and take(tmp_path, RUN) is None
    tidy(tmp_path)
    assert not box.folder.exists()


def test_files_that_can_not_be_removed_are_no_error(somebody):
    with TemporaryDirectory() as root:
        box = Outbox(Path(root), RUN)
        folder = box.new_file("x").parent
        (folder / "x").touch()
        folder.chmod(0o500)
        box.close()
        assert (folder / "x").exists() and left_ones(Path(root)) == []
        folder.chmod(0o700)
