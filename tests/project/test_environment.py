"""What commands are run with."""

import os
import subprocess
import sys

import pytest

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "OMP_WAIT_POLICY")


@pytest.mark.skipif(sys.platform != "linux", reason="torch has expandable segments on Linux")
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
