"""A store with runs of every state, and a working folder: what malformed inputs meet."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mlflow import MlflowClient

from pti_pipeline import lora
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE, seal
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.pivot import Pivot, save_pivot
from pti_pipeline.settings import TARGETS
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.store import connect
from pti_pipeline.world import render
from pti_pipeline.world.subjects import MOCHI, views

EMPTY = "0" * 32
"""A run id that no run has."""


@dataclass(frozen=True)
class Stage:
    """Where inputs are tried.

    Attributes
    ----------
    folder : Path
        The working folder, with ``pictures/`` and ``bundle/`` that are as they should be.
    runs : dict of str to str
        Run ids by their state: ``missing``, ``deleted``, ``nonsense``, ``foreign`` (of another
        program), ``running``, ``failed``, ``sweep`` (without runs), ``study``, ``tuning`` and
        ``inversion`` (finished, with their files).
    client : MlflowClient
    """

    folder: Path
    runs: dict[str, str]
    client: MlflowClient

    def count(self) -> int:
        """Runs of all experiments, the deleted ones too."""
        places = [each.experiment_id for each in self.client.search_experiments(view_type=3)]
        return len(self.client.search_runs(places, run_view_type=3, max_results=10_000))


@contextmanager
def staged() -> Iterator[Stage]:
    """Set a stage up, for a while."""
    before = dict(os.environ)
    with TemporaryDirectory() as name, chdir(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        for key in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
            os.environ.pop(key, None)
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PTI_DEBUG": "no"}
        try:
            base = load("world", "cpu")
            (folder / "pictures").mkdir()
            for i, picture in enumerate(render(views(MOCHI, 2), 48)):
                _save(picture, folder / "pictures" / f"{i}.png")
            write_bundle(base, folder / "bundle")
            yield Stage(folder, _runs(base, folder), connect())
        finally:
            os.environ.clear()
            os.environ.update(before)


def write_bundle(base: BaseModel, folder: Path) -> None:
    """Write a character that was never trained, as a registered version holds it."""
    save_pivot(_pivot(base), folder / PIVOT_FILE)
    base.save_lora(*_lora(base), folder)
    facts = {"base": "world", "base_fingerprint": base.fingerprint, "token": "<mei>"}
    seal(folder, {**facts, "initializer": "cat", "run": EMPTY})


def _pivot(base: BaseModel) -> Pivot:
    start = base.initializer_row("cat")[None]
    return Pivot("<mei>", "cat", start * 1.1, start)


def _lora(base: BaseModel) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    state = lora.peft_state(adapter, 0)
    lora.detach(adapter)
    return state, {"r": 2, "lora_alpha": 2.0, "target_modules": list(TARGETS)}


def _save(pixels: object, path: Path) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


def _runs(base: BaseModel, folder: Path) -> dict[str, str]:
    client = connect()
    known = {
        "pti.base": "world",
        "pti.base_fingerprint": base.fingerprint,
        "pti.token": "<mei>",
        "pti.initializer": "cat",
        "pti.images": str(folder / "pictures"),
        "pti.data_fingerprint": "d" * 64,
        "pti.outcome": "finished",
    }
    steps = {
        "inversion": {**known, "pti.step": "invert"},
        "tuning": {**known, "pti.step": "finetune"},
        "sweep": {"pti.step": "sweep", "pti.stage": "invert"},
        "study": {"pti.step": "main"},
        "foreign": {},
        "deleted": {**known, "pti.step": "invert"},
    }
    ids = {"missing": EMPTY, "nonsense": "latest", "empty": ""}
    for name, tags in steps.items():
        params = {"vectors": 1, "lr": 0.001, "steps": 20, "seed": 0}
        with open_run(f"{name} run", params, tags) as run:
            ids[name] = run.id
            if name in ("inversion", "tuning"):
                run.log_artifact(folder / "bundle" / PIVOT_FILE, "pivot")
            if name == "tuning":
                run.log_artifact(folder / "bundle" / LORA_FILE, "lora")
    client.delete_run(ids["deleted"])
    place = client.get_run(ids["study"]).info.experiment_id
    for name, status in (("running", "RUNNING"), ("failed", "FAILED")):
        made = client.create_run(place, tags={**known, "pti.step": "invert"}, run_name=name)
        ids[name] = made.info.run_id
        if status != "RUNNING":
            client.set_terminated(ids[name], status)
    return ids
