"""Runs a command in processes that can be killed at a moment of one's choice."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, NoReturn

from faults.places import enter
from pti_pipeline.steps import resuming

WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "sqlite3.connect")
"""Audit events that change the file system, beside that of opening to write."""
PATIENCE = 600.0
"""Seconds that a command has, on a busy machine too; then it hangs."""
HUNG = 124
"""Exit code of what hangs."""


@dataclass(frozen=True)
class Strike:
    """When to kill: before the ``write``-th write, or after some ``seconds``; never if both are 0.

    A write is what Python tells by an audit event. What SQLite writes, and safetensors' Rust, it
    does not tell: that is hit by time alone.
    """

    write: int = 0
    seconds: float = 0.0


NEVER = Strike()


def run(command: Callable[[], object], place: Path, strike: Strike = NEVER) -> tuple[int, int]:
    """Run a command in a folder with a store, as a process group of its own.

    What was killed is down when this returns, and what it forked: a worker that waits for the disk
    dies late, and has its locks until then.

    Returns
    -------
    int, int
        Exit code, below 0 if it was killed; and how often it wrote.
    """
    counter, (living, held) = mmap(-1, 8), os.pipe()
    child = os.fork()
    if not child:
        os.close(living)
        _be(command, place, counter, strike.write)
    os.close(held)  # now it is open in the child and its forks alone
    os.setpgid(child, child)  # it does so itself, but may not be there yet when it is killed
    deadline = time.monotonic() + (strike.seconds or PATIENCE)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    hung = not strike.seconds and time.monotonic() > deadline
    code = HUNG if hung else os.waitstatus_to_exitcode(ended[1])
    # it can be read once nobody has the other end
    if code < 0 and not select.select([living], [], [], PATIENCE)[0]:
        code = HUNG
    os.close(living)
    return code, int.from_bytes(counter[:8], "little")


def _be(command: Callable[[], object], place: Path, counter: mmap, write: int) -> NoReturn:
    """Be the process that may be killed."""
    code = 1
    try:
        os.setpgid(0, 0)
        enter(place)
        log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        resuming.PAUSE = 0.0  # checkpoints at every 50th step, however fast
        sys.addaudithook(_counting(counter, write))
        command()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _counting(counter: mmap, write: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Hook that counts writes, of forked workers too, and kills the group before one of them."""

    def hook(event: str, facts: tuple[Any, ...]) -> None:
        flags = facts[2] if event == "open" else 0
        if event in WRITES or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            done = int.from_bytes(counter[:8], "little") + 1
            counter[:8] = done.to_bytes(8, "little")
            if done == write:
                os.killpg(0, signal.SIGKILL)

    return hook
