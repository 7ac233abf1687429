"""A tracking server that lies: what it lists and sends stays where it was asked for."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from pti_pipeline.errors import ModelError, StoreError
from pti_pipeline.steps.measured import FOLDER
from pti_pipeline.tracking.find import Found, fetch
from pti_pipeline.tracking.read import sample_grids

RUN = "0" * 32
GRID = "samples+step+1+timestamp+1+x.png"
API = "/api/2.0/mlflow"


class Liar(BaseHTTPRequestHandler):
    """Answers as MLflow's server does, but for the names of the files it lists."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self):
        parts = urlsplit(self.path)
        if parts.path.startswith(f"{API}-artifacts/artifacts/"):
            self.server.sent.append(unquote(parts.path))
            return self.send(b"hostile")
        if parts.path == f"{API}-artifacts/artifacts":
            (asked,) = parse_qs(parts.query).get("path", [""])
            names = [] if asked.endswith(("png", "tensors")) else self.server.names
            return self.send({"files": [{"path": n, "is_dir": False} for n in names]})
        place = {"experiment_id": "0", "name": "pti", "artifact_location": "mlflow-artifacts:/0"}
        info = {"run_id": RUN, "artifact_uri": f"mlflow-artifacts:/0/{RUN}/artifacts", **place}
        return self.send({"experiments": [place], "run": {"info": info, "data": {}}})

    def send(self, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def liar(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    server.names, server.sent = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "a" / "b" / "c" / "d"
    folder.mkdir(parents=True)
    return folder


RUN_THERE = Found(RUN, "r", "FINISHED", {}, {}, {})


def outside(place, tmp_path):
    return [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(place)]


def hostile(tmp_path, name):
    return [
        f"../{name}", f"../../../{name}", f"{tmp_path}/{name}", f"x/../../../{name}",
        f"..%2f..%2f{name}", f"%2e%2e/%2e%2e/{name}", f"..\\..\\{name}", f"file://{tmp_path}/{name}",
    ]  # fmt: skip


def test_what_is_listed_as_it_should_be_is_fetched(liar, place):
    liar.names = [GRID]
    assert sample_grids(RUN_THERE, place) == {}  # it is no picture
    assert len(liar.sent) == 1 and (place / RUN / GRID).read_bytes() == b"hostile"


def test_pictures_that_are_listed_elsewhere_are_not_fetched(liar, place, tmp_path):
    for name in hostile(tmp_path, GRID):
        liar.names = [name]
        try:
            assert sample_grids(RUN_THERE, place) == {}
        except StoreError as error:
            assert error.code == "E504" and "\n" not in str(error)
        assert outside(place, tmp_path) == []
    assert all(path.endswith(f"images/{GRID}") for path in liar.sent), liar.sent


def test_folders_that_list_files_elsewhere_are_refused(liar, place, tmp_path):
    for name in hostile(tmp_path, "x.safetensors"):
        liar.names = [name]
        try:
            fetch(RUN_THERE, FOLDER, place)
        except ModelError as error:
            assert error.code == "E407"
        assert outside(place, tmp_path) == []


def test_a_file_is_asked_for_by_its_own_name(liar, place, tmp_path):
    liar.names = []
    found = fetch(RUN_THERE, "pivot/learned_embeds.safetensors", place)
    assert found == place / "learned_embeds.safetensors" and found.read_bytes() == b"hostile"
    assert fetch(RUN_THERE, "../../x.safetensors", place) == place / "x.safetensors"
    assert outside(place, tmp_path) == []
