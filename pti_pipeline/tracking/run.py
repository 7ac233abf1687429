"""What a run logs, on its way to the tracking store."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pti_pipeline.hashes import file_hash
from pti_pipeline.tracking.earlier import Logged
from pti_pipeline.tracking.find import HASH, Found
from pti_pipeline.tracking.sender import Post, sender
from pti_pipeline.tracking.sending import BATCH, MODEL

LONGEST_KEY = 150
"""Letters of a picture's key: they are a part of its file's name."""
NOTHING = Logged()


class Run:
    """A run that is being written.

    Nothing here waits for the tracking store: what is logged goes to a journal on disk, with the
    time at which it was measured, and is sent from there by a thread of its own. What ``logged``
    says is there already is not logged again: it would be the same.
    """

    def __init__(self, post: Post, logged: Logged = NOTHING) -> None:
        self.id = post.box.run_id
        self._post, self._logged = post, logged
        self._waiting: list[list[object]] = []

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at ``step``; one that is infinite is logged as NaN, which sorts last."""
        there = self._logged.points
        self._waiting += _rows({k: v for k, v in values.items() if (k, step) not in there}, step)
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write down the numbers logged so far, which are then no longer this process's to lose."""
        for start in range(0, len(self._waiting), BATCH):
            self._put("metrics", self._waiting[start : start + BATCH])
        self._waiting.clear()

    def sync(self) -> None:
        """Write down all that was logged so far, so that not even a power failure loses it."""
        self.flush()
        self._post.box.sync()

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters that the run does not have yet."""
        self._put("params", _words(values))

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Set tags."""
        self._put("tags", _words(values))

    def add_to(
        self, other: Found, metrics: Mapping[str, float], tags: Mapping[str, object]
    ) -> None:
        """Log numbers at the last step of another run, which has ended, and set its tags.

        They are those of its weights too.
        """
        step, model = int(other.params.get("steps", 0)), other.tags.get(MODEL)
        rows = [[*row, model] for row in _rows(metrics, step)]
        self._put("addition", {"metrics": rows, "tags": _words(tags)}, other.id)

    def log_dataset(self, dataset: Mapping[str, str]) -> None:
        """Say what the run learned from, in the words of MLflow's ``Dataset``."""
        self._put("dataset", dict(dataset))

    def log_model(self, facts: Mapping[str, object]) -> None:
        """Make a logged model of its weights; see :func:`pti_pipeline.tracking.weights`."""
        self._put("model", dict(facts))

    def log_image(self, key: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log a picture, (H, W, 3), to the image grid under ``key``, in letters MLflow takes."""
        key = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", key)[:LONGEST_KEY]
        if (key, step) in self._logged.pictures:
            return
        with self._post.box.writing():
            path = self._post.box.new_file("image.png")
            Image.fromarray(picture).save(path)
        self._put_file("image", path, {"key": key, "step": step, "time": _now()})

    def log_figure(self, figure: Figure, path: str) -> None:
        """Log a matplotlib figure as artifact ``path``."""
        with self._post.box.writing():
            file = self._post.box.new_file(PurePosixPath(path).name)
            figure.savefig(file)
        self._put_file("artifact", file, {"folder": _parent(path)})

    def log_text(self, text: str, path: str) -> None:
        """Log a text file as artifact ``path``."""
        with self._post.box.writing():
            file = self._post.box.new_file(PurePosixPath(path).name)
            file.write_text(text, encoding="utf-8")
        self._put_file("artifact", file, {"folder": _parent(path)})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or a folder's files, under ``folder``; weights' hashes are tags."""
        if path.suffix == ".safetensors":
            self.set_tags({f"{HASH}{PurePosixPath(folder or '', path.name)}": file_hash(path)})
        with self._post.box.writing():
            kept = self._post.box.new_file(path.name)
            if path.is_dir():
                shutil.copytree(path, kept)
            else:
                shutil.copyfile(path, kept)
        self._put_file("artifact", kept, {"folder": folder})

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until the store has all that was logged so far, and return whether it has."""
        self.flush()
        return sender().drain(self._post, seconds)

    def end(self, status: str) -> None:
        """Say how the run ended."""
        self.flush()
        self._put("end", {"status": status, "time": _now()})

    def _put_file(self, kind: str, path: Path, value: dict[str, object]) -> None:
        self._put(kind, {"file": path.relative_to(self._post.box.folder).as_posix(), **value})

    def _put(self, kind: str, value: object, to: str = "") -> None:
        if value:
            self._post.box.put(kind, value, to)
            sender().notify()


def _rows(values: Mapping[str, float], step: int) -> list[list[object]]:
    """Key, value, time in milliseconds and step of numbers; infinite ones are NaN."""
    now, numbers = _now(), {key: float(value) for key, value in values.items()}
    return [[k, v if math.isfinite(v) else math.nan, now, step] for k, v in numbers.items()]


def _words(values: Mapping[str, object]) -> dict[str, str]:
    """Values as text; without NUL, which PostgreSQL does not take."""
    return {key: str(value).replace("\0", "") for key, value in values.items()}


def _now() -> int:
    return int(time.time() * 1000)


def _parent(path: str) -> str | None:
    folder = str(PurePosixPath(path).parent)
    return None if folder == "." else folder
