"""MLflow's own server of its UI, for as long as somebody looks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from pti_pipeline.errors import StoreError, UsageError
from pti_pipeline.tracking.interruption import interruptible
from pti_pipeline.tracking.store import store_uri

HOST = "127.0.0.1"
PATIENCE = 180
"""Seconds that the server has to answer: it takes a few, a minute on a busy machine."""
GRACE = 10
"""Seconds that it has to end."""


@contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the UI of this process's store on this machine alone, while this lasts.

    Ctrl-C and termination end the server, and every process that it started.

    Raises
    ------
    UsageError
        If the port is taken.
    StoreError
        If the server ends by itself or does not answer.
    """
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            hint = f"end what listens there, or use --port={port + 1}"
            raise UsageError("E234", f"port {port} is taken", hint) from None
    words = ["--host", HOST, "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store_uri(), *words]
    with TemporaryFile() as said, interruptible() as interruption:
        process = subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, which can be ended as a whole
        )
        try:
            interruption.lower()  # not before: a server that is not known here would stay
            _wait_for(process, port, said)
            yield process
        finally:
            interruption.holds += 1
            _end(process)


def _wait_for(process: subprocess.Popen[bytes], port: int, said: IO[bytes]) -> None:
    ask = build_opener(ProxyHandler({}))  # a proxy knows another 127.0.0.1
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
            raise StoreError("E510", f"the MLflow UI ended ({last})", "see if `mlflow ui` works")
        with suppress(URLError, OSError), ask.open(f"http://{HOST}:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    what = f"the MLflow UI does not answer within {PATIENCE} s"
    raise StoreError("E510", what, "try again when the machine is less busy")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server's process and those that it started: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()  # else it would stay in its group as a zombie
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            break
    process.wait()
