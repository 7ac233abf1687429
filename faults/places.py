"""Folders with stores of their own, and processes that work there and leave this one clean."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pti_pipeline.studies.processes import IMPORTED

for name in IMPORTED:  # here, and not by each process that is forked
    import_module(name)


def enter(place: Path) -> None:
    """Work in a folder from now on, with a store in it, on one thread; for a fork, at its start."""
    gc.freeze()  # what the fork was born with is no garbage: looking for some would copy it
    tempfile.tempdir = str(place.parent)  # what the killed leave goes when the measurement does
    os.chdir(place)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
    os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"
    os.environ.pop("MLFLOW_RUN_ID", None)
    torch.set_num_threads(1)


def forked(place: Path, ask: Callable[[], Any]) -> Any:
    """Ask something, of which JSON can say the answer, in a process of its own in ``place``.

    This process then never opens a store, and can go on forking.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        code = 1
        try:
            enter(place)
            with os.fdopen(theirs, "w") as pipe:
                json.dump(ask(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()  # nobody else would: the process ends right here
        finally:
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"it failed in {place}")
    return json.loads(text)
