"""Packs side by side on this machine, in processes that are there before their packs are."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch

from pti_pipeline.errors import DEBUG, PtiError, unexpected
from pti_pipeline.machine import cores
from pti_pipeline.studies.packs import Pack, train
from pti_pipeline.tracking import store
from pti_pipeline.workers import at_once, end, end_with_parent, environment

ATTEMPTS = 3
"""How often a pack is tried whose worker dies."""


class PackFailed(PtiError):
    """A pack's process ended with an error, which it has told."""

    def __init__(self, pack: Pack, code: int) -> None:
        super().__init__("E904", f"pack {pack.name} failed", "see its message above")
        self.exit_code = code if code > 0 else 1


@dataclass(frozen=True)
class Worker:
    """A process that waits for a pack, and where to send it."""

    process: BaseProcess
    packs: Connection


def workers() -> int:
    """How many packs this machine runs at once: one on each GPU, else one on each core."""
    return torch.cuda.device_count() or cores()


@contextmanager
def hired(packs: int) -> Iterator[list[Worker]]:
    """Start processes for some packs before these are made; those still idle at the end are ended.

    On Linux they are forks of this process, as long as it has opened neither a tracking store nor a
    GPU: they need not import anything. Else they are new interpreters, and a script that uses this
    needs ``if __name__ == "__main__":``.
    """
    places = min(workers(), packs)
    idle = [_start(place, places) for place in range(places)] if packs > 1 else []
    try:
        yield idle
    finally:
        end([worker.process for worker in idle])


def run_local(packs: Sequence[Pack], idle: list[Worker]) -> None:
    """Run packs side by side in processes of this machine; a single one in this process.

    Parameters
    ----------
    packs : sequence of Pack
    idle : list of Worker
        Of :func:`hired`, in order of their places; taken from.

    Raises
    ------
    PackFailed
        With the process's exit code; the other packs are ended too.
    """
    if len(packs) == 1:
        return train(packs[0])
    waiting = deque((pack, 1) for pack in packs)
    running: dict[int, tuple[Worker, Pack, int]] = {}
    places = min(workers(), len(packs))
    try:
        while waiting or running:
            for place in sorted(set(range(places)) - set(running)):
                if waiting:
                    pack, attempt = waiting.popleft()
                    worker = idle.pop(0) if idle else _start(place, places)
                    running[place] = worker, pack, attempt
                    with suppress(BrokenPipeError):  # if it died, its exit code will tell
                        worker.packs.send(pack.to_json())
            time.sleep(0.1)
            for place, (worker, pack, attempt) in list(running.items()):
                code = worker.process.exitcode
                if code is not None:
                    del running[place]
                    if code < 0 and attempt < ATTEMPTS:  # killed, e.g. for memory
                        waiting.append((pack, attempt + 1))
                    elif code:
                        raise PackFailed(pack, code)
    finally:
        end([worker.process for worker, _, _ in running.values()])


def _start(place: int, places: int) -> Worker:
    fresh = sys.platform == "linux" and not store.opened() and not torch.cuda.is_available()
    ours, theirs = Pipe()
    context = get_context("fork" if fresh else "spawn")
    process = context.Process(target=_work, args=(theirs, place, places))  # type: ignore[attr-defined]
    with environment("CUDA_VISIBLE_DEVICES", _card(place)):  # before the child asks for any
        process.start()
    theirs.close()
    return Worker(process, ours)


def _work(packs: Connection, place: int, places: int) -> None:
    """Train one pack, in a process of its own; its errors are told and become its exit code."""
    end_with_parent(at_once)
    os.environ |= {"PTI_PLACES": str(places), "PTI_PLACE": str(place)}
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        train(Pack.from_json(packs.recv()))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        debug = os.environ.get(DEBUG) == "yes"
        told = error if isinstance(error, PtiError) else unexpected(error, debug)
        print("".join(traceback.format_exception(error)) if debug else "", end="", file=sys.stderr)
        print(told, file=sys.stderr)
        sys.exit(told.exit_code)


def _card(place: int) -> str:
    """Which GPU a place has: of those that this process may use, if it is told which."""
    given = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    return given[place] if place < len(given) else str(place)
