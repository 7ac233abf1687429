"""A checkpoint is whole or not there, whatever happens while it is written."""

import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from pti_pipeline import checkpoint
from pti_pipeline.checkpoint import (
    FACTS,
    KEPT,
    MANIFEST,
    TENSORS,
    newest,
    optimizer_tensors,
    restore_optimizer,
    save,
)
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
    why = rf"{name} is not what was written" if change != "remove" and name != MANIFEST else ""
    with pytest.warns(UserWarning, match=rf"step-00000100' is damaged \(.*{why}\): passed over"):
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
        with pytest.raises(ResourceError, match=r"\[E602\].*it needs 4 MB there") as caught:
            save(tmp_path, 100, {"a": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.exit_code == 6
    free = int(re.search(r"where (\d+) MB are free", caught.value.hint)[1])
    assert 0 < free <= shutil.disk_usage(tmp_path).total / 1e6
    assert names(tmp_path) == ["step-00000050"] and newest(tmp_path).step == 50


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
        assert names(tmp_path) == ["step-00000050"] and newest(tmp_path).step == 50


def test_folders_are_made_but_not_under_a_file(tmp_path):
    save(tmp_path / "a" / "b", 50, VALUES)
    assert newest(tmp_path / "a" / "b").facts == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"E602.*Not a directory.*where 0 MB are free"):
        save(tmp_path / "file" / "b", 50, VALUES)


def test_the_disk_has_the_files_before_their_name_and_then_the_name(tmp_path, monkeypatch):
    told, fsync = [], os.fsync

    def watched(descriptor):
        told.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    keep(tmp_path, 50)
    *files, aside, folder = [path.as_posix() for path in told]
    assert sorted(files) == [f".step-00000050/{name}" for name in (FACTS, MANIFEST, TENSORS)]
    assert (aside, folder) == (".step-00000050", ".")


def test_what_a_killed_process_left_is_no_hindrance_and_goes(tmp_path):
    (tmp_path / ".step-00000050").mkdir()
    (tmp_path / ".step-00000020").mkdir()
    keep(tmp_path, 50)
    assert newest(tmp_path).step == 50 and names(tmp_path) == ["step-00000050"]


def test_what_can_not_be_removed_does_not_stop_a_training(somebody):
    with TemporaryDirectory() as place:
        folder = Path(place)
        keep(folder, 10, 20)
        shutil.copytree(folder / "step-00000010", folder / ".step-00000015")
        kept = [folder / "step-00000010", folder / ".step-00000015"]
        for path in kept:
            path.chmod(0o500)
        keep(folder, 30)
        assert newest(folder).step == 30 and all(path.is_dir() for path in kept)
        for path in kept:
            path.chmod(0o700)


def test_facts_that_json_can_not_say_are_refused(tmp_path):
    keep(tmp_path, 50)
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, 100, VALUES, {"loss": math.nan})
    assert newest(tmp_path).step == 50


def test_an_optimizer_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    def training():
        weights = [torch.linspace(-1, 1, 3, requires_grad=True), torch.ones((), requires_grad=True)]
        return weights, torch.optim.AdamW(weights, lr=0.1)

    def go_on(weights, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            sum((weight**2).sum() for weight in weights).backward()
            optimizer.step()
        return torch.cat([weight.detach().reshape(-1) for weight in weights])

    weights, optimizer = training()
    go_on(weights, optimizer)
    save(tmp_path, 3, optimizer_tensors(optimizer))
    others, other = training()
    with torch.no_grad():
        for one, weight in zip(others, weights, strict=True):
            one.copy_(weight)
    restore_optimizer(other, newest(tmp_path).tensors)
    assert torch.equal(go_on(others, other), go_on(weights, optimizer))
