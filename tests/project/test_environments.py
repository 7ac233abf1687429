"""Where `mlflow run` gets the project and its environment from."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pti_pipeline.tracking.store import connect

ROOT = Path(__file__).parents[2]
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
INVERT = ["-e", "invert", "-P", "steps=2", "-P", "sample_every=0", "-P", "probes=0"]


def pins():
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text("utf-8"))
    return conda["dependencies"][0], conda["dependencies"][-1]["pip"]


def test_the_image_has_what_conda_yaml_pins():
    text = (ROOT / "Dockerfile").read_text("utf-8")
    python, libraries = pins()
    assert f"FROM python:{python.removeprefix('python=')}-slim" in text
    script = re.search(r"sed -n '(.*)' /tmp/conda.yaml", text).group(1)
    done = subprocess.run(
        ["sed", "-n", script, ROOT / "conda.yaml"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == libraries


def mlflow_run(folder, uri, *words):
    environment = os.environ | {
        "MLFLOW_ENV_ROOT": str(folder / "environments"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow", "run", uri, *INVERT, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = connect().search_runs(["0"])
    assert run.info.status == "FINISHED" and run.data.tags["pti.outcome"] == "finished"
    return run


@pytest.fixture
def repository(store):
    """The tracked and new files in a subfolder of a repository, served by git itself."""
    inner = store / "mono" / "tools" / "pti"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, files.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/")):
            (inner / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, inner / name)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*GIT, *words], cwd=store / "mono", check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["daemon", "--export-all", f"--base-path={store}", "--listen=127.0.0.1"]
    with subprocess.Popen([*GIT, *words, f"--port={port}"], stderr=subprocess.DEVNULL) as daemon:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert daemon.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield f"git://127.0.0.1:{port}/mono"
        daemon.terminate()


@pytest.mark.slow
def test_it_runs_from_a_git_uri_and_from_a_subfolder(store, repository):
    run = mlflow_run(store, f"{repository}#tools/pti", "--env-manager", "local", "-v", "main")
    assert run.data.tags["mlflow.source.git.repoURL"] == repository
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("uv"), reason="no uv: pip install uv")
def test_its_environment_is_built_by_uv(store):
    """Downloads all that conda.yaml pins."""
    mlflow_run(store, str(ROOT), "--env-manager", "uv")
    (python,) = (store / "environments").glob("**/bin/python")
    listed = [python, "-c", "import torch, diffusers; print(torch.__version__.split('+')[0])"]
    done = subprocess.run(listed, capture_output=True, text=True, check=True)
    assert f"torch=={done.stdout.strip()}" in pins()[1]
