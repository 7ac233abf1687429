"""Processes that work side by side, of one thread each, gone with their parent."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread

import torch

from pti_pipeline.errors import ResourceError

PAUSE = 3.0
"""Seconds between two requests to end."""


@contextmanager
def worker_pool(places: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of ``places`` processes; whatever goes wrong inside, none is left.

    On Linux, as long as no GPU is in use, they are forks of this one, as PyTorch's own data loaders
    have them: they need not import anything, and what is loaded here they have too. They must not
    use the tracking store, whose connections are this process's. Elsewhere they are new
    interpreters, and a script that uses this needs ``if __name__ == "__main__":``.

    Raises
    ------
    ResourceError
        If one of the processes dies.
    """
    pool = ProcessPoolExecutor(places, get_context(_method()), _begin)
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


def _method() -> str:
    return "fork" if sys.platform == "linux" and not torch.cuda.is_initialized() else "spawn"


def _begin() -> None:
    torch.set_num_threads(1)  # a fork's threads are gone: with several it would wait for them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's, who ends its runs there
    end_with_parent(at_once)


def end(processes: Sequence[BaseProcess], patience: float = 30.0) -> None:
    """Ask processes to end, again every few seconds; after ``patience`` seconds end them."""
    deadline = time.monotonic() + patience
    while (alive := [p for p in processes if p.is_alive()]) and time.monotonic() < deadline:
        for process in alive:
            process.terminate()
        again = time.monotonic() + PAUSE  # not at once: it would cut short what the first began
        for process in alive:
            process.join(max(0.0, again - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()


def end_with_parent(how: Callable[[], None]) -> None:
    """End this process when the one that started it is gone, even if that was killed.

    Parameters
    ----------
    how : callable
        :func:`at_once` or :func:`gently`.
    """

    def watch(parent: BaseProcess) -> None:
        parent.join()
        how()

    if parent := parent_process():
        Thread(target=watch, args=(parent,), daemon=True).start()


def at_once() -> None:
    """End this process, and leave what it does as it is."""
    os._exit(1)


def gently() -> None:
    """Ask this process to end, as from outside: its runs are ended too."""
    os.kill(os.getpid(), signal.SIGTERM)
