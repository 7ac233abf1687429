"""Processes that work side by side: new interpreters of one thread each, gone with their parent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread

from pti_pipeline.errors import ResourceError


@contextmanager
def worker_pool(places: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of ``places`` processes; whatever goes wrong inside, none is left.

    A script that uses it needs ``if __name__ == "__main__":``.

    Raises
    ------
    ResourceError
        If one of the processes dies.
    """
    pool = ProcessPoolExecutor(places, get_context("spawn"), _end_with_parent)
    with environment("OMP_NUM_THREADS", "1"), pool:  # more threads would fight for the cores
        try:
            yield pool
        except BrokenProcessPool as error:
            raise ResourceError(
                "E601", "a process that drew samples died", "free some memory, or use --device cuda"
            ) from error
        except BaseException:
            for process in active_children():
                process.terminate()
            raise


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, even if that was killed."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
