"""How many experiments or rows share a pass: as many as memory holds, by measurement."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from pti_pipeline.errors import ResourceError, is_out_of_memory
from pti_pipeline.live import most_bytes
from pti_pipeline.machine import free_bytes

USED = 0.8
"""Share of the free memory that a pass may fill; the rest is for what kernels take inside."""
ROWS = 64
"""Rows of a pass that keeps nothing for a backward one, and so is not measured."""

T = TypeVar("T")
Pass = tuple[slice, slice]
"""Experiments, and the rows of each one's batch, that go through the model at once."""


def together(experiments: int, work: Callable[[slice], object], device: torch.device) -> list[int]:
    """Split K experiments into passes that fit into memory.

    Parameters
    ----------
    experiments : int
        K.
    work : callable
        Runs the experiments of a slice forward and backward; measured with one and with two.
    device : torch.device

    Returns
    -------
    list of int
        Edges of passes of nearly equal lengths, from 0 to K.
    """
    if experiments == 1:
        return [0, 1]
    try:
        one, two = (most_bytes(partial(work, slice(0, n)), device) for n in (1, 2))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return list(range(experiments + 1))
    return edges_of(experiments, max(1, int(USED * free_bytes(device) / max(1, two - one))))


def in_parts(rows: int, ask: Callable[[slice], Tensor]) -> Tensor:
    """Answers to many rows, which are asked :data:`ROWS` at a time, or as many as memory holds.

    Raises
    ------
    ResourceError
        If it holds not even one.
    """
    edges = [*range(0, rows, ROWS), rows]
    return halving([0, 1], edges, lambda parts: torch.cat([ask(some) for _, some in parts]))[2]


def passes(edges: Sequence[int], rows: Sequence[int]) -> list[Pass]:
    """Passes between edges of experiments, each as often as there are pieces of the rows."""
    pieces = [slice(*ends) for ends in pairwise(rows)]
    return [(slice(*ends), piece) for ends in pairwise(edges) for piece in pieces]


def halving(
    edges: Sequence[int], rows: Sequence[int], work: Callable[[Sequence[Pass]], T]
) -> tuple[Sequence[int], Sequence[int], T]:
    """Do ``work(passes)``; when memory runs out, again with passes half as long.

    At first of half as many experiments; then, of one experiment, of half as many rows.

    Returns
    -------
    edges, rows, result
        Those that fitted, and what ``work`` gave.

    Raises
    ------
    ResourceError
        If a pass of one row of one experiment does not fit.
    """
    while True:
        try:
            return edges, rows, work(passes(edges, rows))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            experiments, piece = (max(b - a for a, b in pairwise(e)) for e in (edges, rows))
            if experiments > 1:
                edges = edges_of(edges[-1], experiments // 2)
                told = f"{experiments // 2} experiments a pass"
            elif piece > 1:
                rows = edges_of(rows[-1], piece // 2)
                told = f"micro-batches of {piece // 2}"
            else:
                raise ResourceError(
                    "E601",
                    "memory ran out with one row of one experiment",
                    "use --precision=bf16, or a smaller base model",
                ) from error
        warnings.warn(f"memory ran out: going on with {told}", stacklevel=2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def edges_of(count: int, longest: int) -> list[int]:
    """Edges of as few pieces as there can be of at most ``longest``, of nearly equal lengths.

    Examples
    --------
    >>> edges_of(10, 4)
    [0, 3, 6, 10]
    """
    pieces = -(-count // longest)
    return [count * i // pieces for i in range(pieces + 1)]
