"""Where packs run: a process for each core or GPU of this machine, or a Ray cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch

from pti_pipeline.errors import PtiError, UsageError
from pti_pipeline.machine import cores
from pti_pipeline.studies.packs import Pack, train

ATTEMPTS = 3
"""How often a pack is tried whose worker dies."""
ANSWER = 5.0
"""Seconds that a Ray cluster has to answer."""


class PackFailed(PtiError):
    """A pack's process ended with an error, which it has told."""

    def __init__(self, pack: Pack, code: int) -> None:
        super().__init__("E904", f"pack {pack.name} failed", "see its message above")
        self.exit_code = code if code > 0 else 1


def workers() -> int:
    """How many packs this machine runs at once: one on each GPU, else one on each core."""
    return torch.cuda.device_count() or cores()


Process = subprocess.Popen[str]


@contextmanager
def hired(packs: int) -> Iterator[list[Process]]:
    """Start processes for some packs before these are made; they import libraries meanwhile.

    Those that are still waiting for a pack at the end are ended.
    """
    places = min(workers(), packs)
    waiting = [_start(place, places) for place in range(places)] if packs > 1 else []
    try:
        yield waiting
    finally:
        _end(waiting)


def run_local(packs: Sequence[Pack], waiting_for_work: list[Process]) -> None:
    """Run packs side by side in processes of this machine; a single one in this process.

    Parameters
    ----------
    packs : sequence of Pack
    waiting_for_work : list of Popen
        Of :func:`hired`, in order of their places; taken from.

    Raises
    ------
    PackFailed
        With the process's exit code; the other packs are ended too.
    """
    if len(packs) == 1:
        return train(packs[0])
    waiting = deque((pack, 1) for pack in packs)
    running: dict[int, tuple[Process, Pack, int]] = {}
    places = min(workers(), len(packs))
    try:
        while waiting or running:
            for place in sorted(set(range(places)) - set(running)):
                if waiting:
                    pack, attempt = waiting.popleft()
                    idle = waiting_for_work.pop(0) if waiting_for_work else None
                    running[place] = _give(idle or _start(place, places), pack), pack, attempt
            time.sleep(0.1)
            for place, (process, pack, attempt) in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[place]
                    if code < 0 and attempt < ATTEMPTS:  # killed, e.g. for memory
                        waiting.append((pack, attempt + 1))
                    elif code:
                        raise PackFailed(pack, code)
    finally:
        _end([process for process, _, _ in running.values()])


def _end(processes: Sequence[Process]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def _start(place: int, places: int) -> Process:
    environment = {**os.environ, "PTI_PLACES": str(places), "TQDM_POSITION": str(place)}
    if torch.cuda.is_available():
        environment["CUDA_VISIBLE_DEVICES"] = str(place)
    else:
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "pti_pipeline", "pack"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment)


def _give(process: Process, pack: Pack) -> Process:
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # if it died, its exit code will tell
        pipe.write(pack.to_json())
    return process


def run_ray(packs: Sequence[Pack], address: str = "") -> None:
    """Run packs on a Ray cluster, each on one GPU where it has some; dead workers are replaced.

    Parameters
    ----------
    packs : sequence of Pack
    address : str
        ``host:port`` of the cluster's head; one is started on this machine without.

    Raises
    ------
    UsageError
        If Ray is not installed, or the cluster does not answer.
    PackFailed
        With the exit code of the pack's error.
    """
    try:
        import ray
    except ImportError:
        raise UsageError(
            "E219", "Ray is not installed", "run pip install 'pti-pipeline[ray]'"
        ) from None
    if address:
        _check_answer(address)
    place = {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_")}
    ray.init(
        address=address or None,
        runtime_env={"env_vars": {**place, "OMP_NUM_THREADS": "1"}},
        log_to_driver=True,
        include_dashboard=None if address else False,
    )
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": ATTEMPTS - 1}
        task = ray.remote(**options)(_attempt)
        answers = ray.get([task.remote(pack.to_json()) for pack in packs])
    finally:
        ray.shutdown()
    for pack, (code, text) in zip(packs, answers, strict=True):
        if code:
            print(text, file=sys.stderr)
            raise PackFailed(pack, code)


def _attempt(text: str) -> tuple[int, str]:
    try:
        train(Pack.from_json(text))
    except PtiError as error:
        return error.exit_code, str(error)
    return 0, ""


def _check_answer(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            "E220",
            f"no Ray cluster answers at '{address}' ({error})",
            "write its head's host:port, or leave --ray-address out to start one here",
        ) from None
