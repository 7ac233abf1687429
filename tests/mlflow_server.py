"""MLflow's own tracking server, behind a door that can be shut."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from urllib.request import urlopen

import pytest

SCRIPT = """
import sys
from mlflow.server import app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


class Door:
    """Passes connections on to a server; while it is shut they wait, as if the server hung.

    When ``stop`` was called they are refused, as if it were down, until ``start``.
    """

    def __init__(self, server):
        self.server, self.port = server, 0
        self.open = threading.Event()
        self.open.set()
        self.start()

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        self._guests = []
        threading.Thread(target=self._receive, args=(self._listening,), daemon=True).start()

    def stop(self):
        for each in (self._listening, *self._guests):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _receive(self, listening):
        with suppress(OSError):
            while True:
                guest, _ = listening.accept()
                host = socket.create_connection(("127.0.0.1", self.server))
                self._guests += [guest, host]
                for way in ((guest, host), (host, guest)):
                    threading.Thread(target=self._pass, args=way, daemon=True).start()

    def _pass(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                self.open.wait()
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="session")
def server_port(tmp_path_factory):
    """A server with its database and proxied artifacts in a folder of its own."""
    folder = tmp_path_factory.mktemp("server")
    environment = os.environ | {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/server.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    words = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        port = int(process.stdout.readline())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=30):
                break
        yield port
        process.kill()


@pytest.fixture
def server(store, server_port, monkeypatch):
    """The door to a real server, in which runs are kept."""
    door = Door(server_port)
    monkeypatch.setenv("HOME", str(store))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", door.uri)
    yield door
    door.open.set()
    door.stop()
