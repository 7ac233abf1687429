"""A checkpoint is whole or not there, whatever happens while it is written."""

import os
import resource
import signal
import subprocess
import sys

import pytest
import torch

from pti_pipeline import checkpoint
from pti_pipeline.checkpoint import FACTS, KEPT, MANIFEST, TENSORS, newest, save
from pti_pipeline.errors import ResourceError

VALUES = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False])}


def keep(folder, *steps):
    for step in steps:
        save(folder, step, {**VALUES, "step": torch.tensor(step)}, {"runs": ["x"], "lr": 0.1})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_kept_is_read_and_only_the_last_ones_stay(tmp_path):
    assert newest(tmp_path) is None and newest(tmp_path / "nothing") is None
    keep(tmp_path, 50, 100, 1000)
    found = newest(tmp_path)
    assert (found.step, found.facts) == (1000, {"runs": ["x"], "lr": 0.1})
    assert all(torch.equal(found.tensors[name], value) for name, value in VALUES.items())
    assert names(tmp_path) == ["step-00000100", "step-00001000"] and KEPT == 2
    keep(tmp_path, 100)  # a training that went on from before
    assert names(tmp_path) == ["step-00000100", "step-00001000"]


@pytest.mark.parametrize("name", [TENSORS, FACTS, MANIFEST])
@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_damaged_one_is_told_and_passed_over(tmp_path, name, change):
    keep(tmp_path, 50, 100)
    path = tmp_path / "step-00000100" / name
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[:-3] if change == "cut" else data)
    if change == "remove":
        path.unlink()
    with pytest.warns(UserWarning, match="step-00000100.*passed over"):
        assert newest(tmp_path).step == 50


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from pti_pipeline import checkpoint
name, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
owner, _, called = name.rpartition(".")
place = {"": checkpoint, "shutil": checkpoint.shutil, "Path": Path}[owner]
original = getattr(place, called, None)
seen = 0

def killed(*args, **kwargs):
    global seen
    seen += 1
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(place, called, killed)
checkpoint.save(folder, 150, {"a": torch.ones(1000)})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "step"),
    [
        ("save_file", 1, 100),
        ("_write", 1, 100),
        ("_write", 2, 100),
        ("_sync", 1, 100),
        ("_sync", 4, 100),
        ("Path.rename", 1, 100),
        ("_sync", 5, 150),
        ("shutil.rmtree", 2, 150),
        ("end", 1, 150),
    ],
)
def test_a_process_killed_anywhere_leaves_a_whole_one(tmp_path, name, count, step):
    keep(tmp_path, 50, 100)
    words = [sys.executable, "-c", KILLED, name, str(count), str(tmp_path)]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    assert newest(tmp_path).step == step
    assert not [path for path in names(tmp_path) if path.startswith(".")]


def test_a_full_disk_is_told_and_the_one_before_is_whole(tmp_path):
    keep(tmp_path, 50)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))
        with pytest.raises(ResourceError, match=r"E602.*it needs 4 MB") as caught:
            save(tmp_path, 100, {"a": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.exit_code == 6
    assert newest(tmp_path).step == 50 and names(tmp_path) == ["step-00000050"]


@pytest.mark.parametrize("call", ["_write", "_sync", "save_file"])
def test_an_error_at_any_write_leaves_the_one_before(tmp_path, monkeypatch, call):
    keep(tmp_path, 50)
    original, left = getattr(checkpoint, call), 0

    def failing(*args):
        nonlocal left
        left -= 1
        if not left:
            raise OSError(28, os.strerror(28))
        return original(*args)

    monkeypatch.setattr(checkpoint, call, failing)
    for count in range(1, {"_write": 2, "_sync": 4, "save_file": 1}[call] + 1):
        left = count
        with pytest.raises(ResourceError, match=r"E602.*No space left"):
            save(tmp_path, 100, VALUES)
        assert newest(tmp_path).step == 50 and names(tmp_path) == ["step-00000050"]
