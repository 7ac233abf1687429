"""Counter-based randomness: every draw is a function of (seed, stream, step)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import numpy as np
import torch


def _digest(seed: int, stream: str, step: int) -> int:
    return int.from_bytes(sha256(f"{seed}/{stream}/{step}".encode()).digest()[:8], "little")


def generator(seed: int, stream: str, step: int) -> torch.Generator:
    """Torch generator (on the CPU) of one draw.

    Parameters
    ----------
    seed : int
        Of the whole experiment.
    stream : str
        What is drawn: different streams are independent.
    step : int
        Counter within the stream.

    Returns
    -------
    torch.Generator
        Seeded by the SHA-256 of the three, so that a resumed run draws what it would have drawn.
    """
    return torch.Generator("cpu").manual_seed(_digest(seed, stream, step) >> 1)


def numpy_generator(seed: int, stream: str, step: int) -> np.random.Generator:
    """NumPy generator of one draw; see :func:`generator`."""
    return np.random.default_rng(_digest(seed, stream, step))


@contextmanager
def initialised_from(seed: int, stream: str) -> Iterator[None]:
    """Let models built inside draw their initial weights from (seed, stream).

    Libraries take these from torch's global generator, which is put back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_digest(seed, f"weights/{stream}", 0) >> 1)
        yield
