"""Packs on a Ray cluster."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

import pti_pipeline.quiet  # noqa: F401
from pti_pipeline.environment import ALLOCATORS
from pti_pipeline.errors import PtiError, UsageError
from pti_pipeline.studies.local import ATTEMPTS, PackFailed
from pti_pipeline.studies.packs import Pack, train

ANSWER = 5.0
"""Seconds that a Ray cluster has to answer."""


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
    ray.init(
        address=address or None,
        runtime_env={"env_vars": environment()},
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


def environment() -> dict[str, str]:
    """What workers are given of this process's own: where runs are kept, and how torch allocates.

    Each has one thread, since its pack shares the machine with others.
    """
    own = {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_") or k in ALLOCATORS}
    return {**own, "OMP_NUM_THREADS": "1"}


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
