"""A registered character behind MLflow's own server, asked over HTTP."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image
from registered import write_run

from pti_pipeline.families import load
from pti_pipeline.steps.register import register

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where ``mlflow models serve`` answers for a character."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        register(write_run(load("world", "cpu"), "<mei>", size=0.3), "", "champion")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = "models serve -m models:/mei@champion --env-manager local -h 127.0.0.1 -p"
        command = [sys.executable, "-m", "mlflow", *words.split(), str(port)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow runs uvicorn by name
        environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PATH": path}
        with open(folder / "log", "w") as log:
            server = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "log")
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def wait_for(address, server, log):
    until = time.monotonic() + 300
    while time.monotonic() < until and server.poll() is None:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(1)
    pytest.fail(log.read_text())


def ask(address, prompts=("a photo of <mei>",), **params):
    """Status and body of the reply."""
    body = {"dataframe_split": {"columns": ["prompt"], "data": [[p] for p in prompts]}}
    headers = {"Content-Type": "application/json"}
    request = Request(address, json.dumps(body | {"params": params}).encode(), headers)
    try:
        with urlopen(request, timeout=120) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_a_prompt_is_answered_with_pngs(address):
    status, body = ask(address, ["a photo of <mei> on the beach"], seed=5, steps=4, count=2)
    assert status == 200, body
    rows = json.loads(body)["predictions"]
    files = [base64.b64decode(row["png"]) for row in rows]
    assert [row["seed"] for row in rows] == [5, 6]
    assert all(file.startswith(b"\x89PNG") for file in files)
    pictures = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    assert pictures[0].shape == (48, 48, 3) and pictures[0].std() > 5
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"steps": 101}, "steps is 101. Hint: at most 100"),
        ({"count": 5}, "the number of pictures is 5. Hint: at most 4"),
        ({"prompts": ["a"] * 5}, "the number of pictures is 5"),
        ({"prompts": ["a" * 1001]}, "the longest prompt is 1001. Hint: at most 1000"),
        ({"guidance": 31.0}, "guidance is 31. Hint: at most 30"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_over_a_cap_the_reply_is_one_line(address, asked, what):
    status, body = ask(address, **asked)
    assert status == 400
    message = json.loads(body)["message"]
    assert message.startswith("error[E2") and what in message
    assert "\n" not in message and "Traceback" not in body and "stack_trace" not in body


def test_requests_at_once_are_all_answered(address):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: ask(address, seed=3, steps=4), range(4)))
    assert {status for status, _ in replies} == {200}
    assert len({body for _, body in replies}) == 1
