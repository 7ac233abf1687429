"""What commands are run with."""

import os
import platform
import subprocess
import sys

import pytest

from pti_pipeline.studies.cluster import environment
from pti_pipeline.studies.processes import IMPORTED

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "OMP_WAIT_POLICY")


def test_the_server_of_steps_imports_it_first():
    assert IMPORTED[0] == "pti_pipeline.environment"


def test_workers_of_a_cluster_have_the_users_allocator_and_store(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "a:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    given = environment()
    told = (*NAMES, "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS", "PATH")
    assert {name: given[name] for name in told if name in given} == {
        "PYTORCH_CUDA_ALLOC_CONF": "a:1",
        "MLFLOW_TRACKING_URI": "http://somewhere",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.skipif(
    sys.platform != "linux"
    or platform.machine() != "x86_64"
    or "microsoft" in platform.release().lower(),
    reason="not all drivers have expandable segments",
)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["expandable_segments:True", None, "PASSIVE"]),
        ({"PYTORCH_ALLOC_CONF": "a:1"}, ["a:1", None, "PASSIVE"]),
        ({"PYTORCH_CUDA_ALLOC_CONF": "a:1"}, [None, "a:1", "PASSIVE"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["expandable_segments:True", None, "ACTIVE"]),
    ],
)
def test_a_users_own_environment_holds(given, expected):
    """It is as it should be before torch is there to read it."""
    code = f"import os, sys, pti_pipeline.cli; print([os.environ.get(n) for n in {NAMES}])"
    code += "; assert 'torch' not in sys.modules"
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | given
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize(
    ("system", "machine", "release"),
    [
        ("win32", "AMD64", "11"),
        ("linux", "aarch64", "5.15.148-tegra"),
        ("linux", "x86_64", "5.15.167.4-microsoft-standard-WSL2"),
    ],
)
def test_an_allocator_is_left_alone_where_drivers_are_behind(system, machine, release):
    code = f"import os, platform, sys; sys.platform = {system!r}; "
    code += f"platform.machine = lambda: {machine!r}; platform.release = lambda: {release!r}; "
    code += "import pti_pipeline.environment; print(os.environ.get('PYTORCH_ALLOC_CONF'))"
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
