"""A peer's own training loop in a process of its own, stopped and gone on with in turns."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks import stand_in
from benchmarks.timing import clock

PATIENCE = 30
"""Seconds that a peer is given to end by itself."""


@dataclass(frozen=True)
class Script:
    """A peer's program and what it is called with.

    Attributes
    ----------
    path : Path
        A script; or a package's folder, of which ``function`` is called.
    arguments : mapping of str to object
        By name; ``{output}`` stands for a folder that is thrown away.
    function : str
        ``module:name``; empty for a script.
    """

    path: Path
    arguments: Mapping[str, Any]
    function: str = ""


@dataclass(frozen=True)
class Peer:
    """A running peer: the line to it, and the file that has what it prints."""

    connection: Connection
    log: Path

    def steps(self, count: int) -> list[float]:
        """Let the peer take ``count`` optimizer steps; return the seconds of each.

        A step lasts from the end of one update to the end of the next, so that loading data and
        logging are part of it.
        """
        try:
            self.connection.send(count)
            seconds: list[float] = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(f"the peer ended:\n{self.log.read_text()[-3000:]}") from error
        return seconds


@contextmanager
def running(script: Script, device: str) -> Iterator[Peer]:
    """Start a peer; it takes steps when told to, and ends here."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with TemporaryDirectory() as folder:
        process = context.Process(target=_serve, args=(script, device, Path(folder), there))
        process.start()
        there.close()
        try:
            yield Peer(here, Path(folder) / "log")
        finally:
            here.close()  # which ends the peer where it waits
            process.join(PATIENCE)
            process.kill()
            process.join()


def _serve(script: Script, device: str, folder: Path, connection: Connection) -> None:
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    stand_in.install()
    left, seconds, last = connection.recv(), list[float](), clock(device)

    def updated(*_: object) -> None:
        nonlocal left, last
        seconds.append(clock(device) - last)
        left -= 1
        if not left:
            connection.send(seconds)
            seconds.clear()
            left = connection.recv()
        last = clock(device)

    register_optimizer_step_post_hook(updated)
    arguments = {
        name: value.format(output=folder) if isinstance(value, str) else value
        for name, value in script.arguments.items()
    }
    if script.function:
        sys.path.insert(0, str(script.path))
        module, _, name = script.function.partition(":")
        getattr(importlib.import_module(module), name)(**arguments)
    else:
        sys.argv = [str(script.path), *(f"--{name}={value}" for name, value in arguments.items())]
        runpy.run_path(str(script.path), run_name="__main__")
