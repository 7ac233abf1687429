"""Steps in processes of their own, forked from a server that has imported the libraries once.

Importing torch, diffusers and MLflow takes seconds, which a study would pay for each of its steps.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

IMPORTED = (
    "pti_pipeline.environment",
    "pti_pipeline.quiet",
    "mlflow.store.tracking.sqlalchemy_store",
    "pti_pipeline.families.recognise",
    "pti_pipeline.families.stable_diffusion",
    "pti_pipeline.steps.evaluate",
    "pti_pipeline.steps.register",
    "pti_pipeline.steps.select",
    "pti_pipeline.studies.sweep",
)
"""What the server imports, with what others import late; it uses none of it, so that no device is
forked while in use."""
GRACE = 30
"""Seconds that a step has to end its runs after Ctrl-C, which reaches it too."""


def run_command(words: Sequence[str]) -> int:
    """Run ``pti <words>`` through its entry point, in a process of its own.

    Parameters
    ----------
    words : sequence of str
        The command line, without the program's name.

    Returns
    -------
    int
        Its exit code. Should this process be ended meanwhile, so is that one.
    """
    from pti_pipeline.workers import end  # with torch, which the command line must not load

    process = _server().Process(target=_enter, args=(list(words), dict(os.environ)))  # type: ignore[attr-defined]
    process.start()
    try:
        process.join()
    except BaseException as reason:
        if isinstance(reason, KeyboardInterrupt):
            process.join(GRACE)
        end([process], 2 * GRACE)  # it ends those that it started, which may take as long
        raise
    code: int = process.exitcode
    return code


def warm_up() -> None:
    """Let the server import the libraries while this process does something else."""
    if _server().get_start_method() == "forkserver":
        forkserver.ensure_running()


def _server() -> BaseContext:
    """Give the context of forked processes; of new interpreters where that is unsafe or absent.

    On macOS a process forked after Apple's frameworks are loaded can't use the GPU.
    """
    if sys.platform == "darwin" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED])
    return context


def _enter(words: list[str], environment: Mapping[str, str]) -> None:
    from pti_pipeline.workers import end_with_parent, gently

    end_with_parent(gently)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["pti", *words]
    runpy.run_module("pti_pipeline", run_name="__main__")
