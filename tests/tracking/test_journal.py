"""The journal: what was written is read, whatever happened to the process or the disk."""

import math
from binascii import crc32
from errno import ENOSPC

import pytest
from full_disks import full_disk

from pti_pipeline.tracking import journal

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


def test_a_line_that_does_not_fit_is_not_there_at_all(path):
    whole = path.read_bytes()
    with full_disk(len(whole) + 9), pytest.raises(OSError, match="No space left") as caught:
        journal.append(path, ENTRIES[0])
    assert (caught.value.errno, caught.value.filename) == (ENOSPC, str(path))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", [b"{", b"[]", b"5", b'"x"', b"null", b"[" * 99_999, b"\xff"])
def test_lines_with_a_right_checksum_that_are_no_entries_are_passed_over(path, text):
    with path.open("ab") as file:
        file.write(b"%08x %s\n" % (crc32(text), text))
    journal.append(path, ENTRIES[0])
    assert read(path) == [*ENTRIES, ENTRIES[0]]
