"""What in the project reads files of bundles, runs, registered versions and checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import mlflow
import torch
from mlflow.exceptions import MlflowException

from faults.doors import Door, Load, Prepare, world
from faults.payloads import plant
from pti_pipeline import checkpoint
from pti_pipeline.bundle import BUNDLE_FILE, LORA_FILE, PIVOT_FILE, load_bundles, seal
from pti_pipeline.families.base import BaseModel
from pti_pipeline.pivot import Pivot, save_pivot
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, FinetuneSettings, SampleSettings
from pti_pipeline.steps import evaluate, export, finetune, generate, prepared, register
from pti_pipeline.tracking import registry
from pti_pipeline.tracking.runs import open_run

FILES = (PIVOT_FILE, LORA_FILE)
EXAMPLE = Path(__file__).parents[1] / "examples" / "mochi"
WHERE = BaseSettings("world", "cpu")
Make = Callable[[Path, str, str, Path], object]
"""``make(folder, planted, form, sentinel)`` writes a character with a pickle among its files."""
HOW = SampleSettings(2, 1.0)


@contextmanager
def own_store() -> Iterator[None]:
    """A tracking store in a folder of its own, for a while."""
    with TemporaryDirectory() as folder, chdir(folder):
        places = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        with patch.dict(os.environ, places):
            for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
                os.environ.pop(name, None)
            yield


def _facts(base: BaseModel) -> dict[str, str]:
    facts = {"base": "world", "base_fingerprint": base.fingerprint}
    return {**facts, "token": "<x>", "initializer": "rabbit"}


def _weights(folder: Path, planted: str, form: str, sentinel: Path) -> None:
    """Write a character's files, one of them a pickle."""
    base = world()
    start = base.initializer_row("rabbit")[None]
    save_pivot(Pivot("<x>", "rabbit", start + 0.01, start), folder / PIVOT_FILE)
    plant(folder / planted, form, sentinel)


def _bundle(folder: Path, planted: str, form: str, sentinel: Path) -> Path:
    """Write a bundle whose hashes are right."""
    bundle = folder / "bundle"
    _weights(bundle, planted, form, sentinel)
    seal(bundle, {**_facts(world()), "run": "0" * 32})
    return bundle


def _folder(folder: Path, planted: str, form: str, sentinel: Path) -> str:
    return str(_bundle(folder, planted, form, sentinel))


def _run(folder: Path, planted: str, form: str, sentinel: Path) -> str:
    """Log a finished run that holds a pickle; return its id."""
    _weights(folder, planted, form, sentinel)
    step = "invert" if planted == PIVOT_FILE else "finetune"
    tags = {f"pti.{name}": word for name, word in _facts(world()).items()}
    tags |= {
        "pti.pivot": "0" * 32,
        "pti.step": step,
        "pti.outcome": "finished",
        "pti.images": str(EXAMPLE),
    }
    params = {"lr": 0.001, "steps": 1, "vectors": 1}
    with open_run(step, params, {**tags, "pti.data_fingerprint": "0" * 64}) as run:
        run.log_artifact(folder / PIVOT_FILE, "pivot")
        if step == "finetune":
            run.log_artifact(folder / LORA_FILE, "lora")
        run.log_metrics({"distance/delta_norm": 1.0, "reconstruction/bank_gain": 0.1})
    return run.id


def _version(folder: Path, planted: str, form: str, sentinel: Path) -> str:
    """Put a bundle that holds a pickle into the registry, with its hashes, and tell where."""
    bundle = _bundle(folder, planted, form, sentinel)
    with open_run("attacker", {}, {"pti.step": "finetune"}) as run:
        pass
    name = f"v{run.id}"
    registry.register(name, bundle, run.id, "a photo of <x>", {}, "", "champion")
    return f"models:/{name}@champion"


def _draw(model: str) -> object:
    where, output = BaseSettings("", "cpu"), Path("out")
    return generate.generate(where, [model], [], "{}", 1, 0, HOW, output)


def _tune(run_id: str) -> object:
    settings = [FinetuneSettings(pivot=run_id, steps=1)]
    ready = prepared.prepare_finetuning(WHERE, settings, None)
    return finetune.run_finetunings(ready, settings, WatchSettings(0, 0))


USES = {
    "generate": _draw,
    "export": lambda model: export.export(model, ["diffusers"], Path("exported")),
}
OF_RUNS = {
    **USES,
    "register": lambda run_id: register.register(run_id, "", "champion"),
    "evaluate": lambda run_id: evaluate.evaluate(WHERE, run_id, 8, 1, HOW),
}


def _doors() -> Iterator[Door]:
    for planted in FILES:
        yield Door(f"bundle's {planted}", _prepared(_bundle, planted, lambda b: load_bundles([b])))
        for name, use in USES.items():
            yield Door(f"{name}, bundle's {planted}", _prepared(_folder, planted, use))
            yield Door(f"{name}, version's {planted}", _prepared(_version, planted, use))
        for name, use in OF_RUNS.items():
            yield Door(f"{name}, run's {planted}", _prepared(_run, planted, use))
        loaded = _prepared(_version, planted, mlflow.pyfunc.load_model)
        yield Door(f"pyfunc, version's {planted}", loaded)
    yield Door("finetune, run's pivot", _prepared(_run, PIVOT_FILE, _tune))
    yield Door("bundle.json", _manifest, tells=False)
    yield Door("pyfunc of a pickled object", _pickled_model, raises=MlflowException)
    yield Door("checkpoint", _checkpoint, passes_over=True)


def _prepared(make: Make, planted: str, use: Callable[[Any], object]) -> Prepare:
    """Plant first, then use what was made."""

    def prepare(folder: Path, form: str, sentinel: Path) -> Load:
        made = make(folder, planted, form, sentinel)
        return lambda: use(made)

    return prepare


def _manifest(folder: Path, form: str, sentinel: Path) -> Load:
    bundle = _bundle(folder, LORA_FILE, form, sentinel)
    plant(bundle / BUNDLE_FILE, form, sentinel)
    return lambda: load_bundles([bundle])


def _pickled_model(folder: Path, _: str, sentinel: Path) -> Load:
    """A model as MLflow would write an object: pickled, and here a trap."""

    class Evil(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: object, model_input: list[str]) -> list[str]:
            return model_input

    path = folder / "model"
    mlflow.pyfunc.save_model(path, python_model=Evil())
    (pickled,) = path.glob("*.pkl")
    plant(pickled, "protocol 2", sentinel)
    return lambda: mlflow.pyfunc.load_model(str(path))


def _checkpoint(folder: Path, form: str, sentinel: Path) -> Load:
    """A checkpoint whose manifest has the pickle's own hash."""
    checkpoint.save(folder / "state", 1, {"w": torch.zeros(2)})
    (place,) = (folder / "state").iterdir()
    file = plant(place / checkpoint.TENSORS, form, sentinel)
    manifest = json.loads((place / checkpoint.MANIFEST).read_text("utf-8"))
    manifest[checkpoint.TENSORS] = sha256(file.read_bytes()).hexdigest()
    (place / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    return lambda: checkpoint.newest(folder / "state")


STORED = [*_doors()]
"""Those that need a tracking store."""
