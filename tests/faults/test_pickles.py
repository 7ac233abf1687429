"""Nothing that is planted in a file runs; ``python -m faults.pickles --long`` tries all of it."""

import pickle

import numpy as np
import pytest
import torch

from faults.doors import DOORS
from faults.payloads import FORMS, plant
from faults.pickles import attempts, verdict, watched
from faults.stored import STORED

FEW = [
    door
    for door in STORED
    if not door.name.startswith(("pyfunc", "generate", "export", "evaluate"))
]
REST = [door for door in STORED if door not in FEW]


@pytest.mark.parametrize("form", FORMS)
def test_the_traps_spring_where_they_are_unpickled(tmp_path, form):
    path = plant(tmp_path / "trap", form, tmp_path / "sentinel")
    with watched() as seen:
        if "torch" in form:
            torch.load(path, weights_only=False)
        elif form == "arrays":
            np.load(path, allow_pickle=True)["x"]
        else:
            pickle.loads(path.read_bytes())  # noqa: S301 (ours)
    assert (tmp_path / "sentinel").exists()
    assert len(seen) == (2 if "torch" in form else 1)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_files_and_folders(door):
    held(door)


@pytest.mark.usefixtures("registry_store")
@pytest.mark.parametrize("door", FEW, ids=lambda door: door.name)
def test_bundles_runs_versions_and_checkpoints(door):
    held(door)


@pytest.mark.slow
@pytest.mark.usefixtures("registry_store")
@pytest.mark.parametrize("door", REST, ids=lambda door: door.name)
def test_all_the_others(door):
    held(door)


def held(door):
    with watched() as seen:
        for outcome in attempts([door], long=False):
            assert not outcome.executed
            wanted = "passed_over" if door.passes_over else "refused"
            assert verdict(outcome) == wanted, outcome.error
    assert seen == []
