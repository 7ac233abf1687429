"""Bytes of the tensors that some work has at once, counted as it runs.

The work may run on the meta device, which has shapes and no numbers: what it would take on another
is then known before, in seconds.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that come to be on a device within it, until each is gone.

    What a kernel takes inside is not seen.

    Attributes
    ----------
    now, most : int
        Bytes now, and the most at once.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.now = self.most = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Run an operation, and count what it makes that was not there before."""
        given = {id(storage) for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            new = id(storage) not in given and id(storage) not in self._known
            if new and storage.device.type == self.device.type:
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def forget(_: object) -> None:
            self.now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, forget)
        self.now += size
        self.most = max(self.most, self.now)


class Efficient(TorchFunctionMode):
    """Lets attention on the meta device keep what a GPU's kernels keep: no scores.

    There torch takes attention apart, and would keep a probability for each pair of tokens. The
    fused kernels keep queries, keys, values, the answer, and one number a query (Dao et al. 2022).
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Run a function; attention as a fused kernel."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args and args[0].is_meta:
            return _fused(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def counted(device: torch.device) -> Iterator[Live]:
    """Count what is live meanwhile; on the meta device as on a GPU."""
    with Efficient(), Live(device) as live:
        yield live


def most_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of the tensors that ``work`` makes, at the moment when they are the most."""
    with counted(device) as live:
        work()
    return live.most


def held_bytes(forward: Callable[[], object], device: torch.device) -> int:
    """Bytes of what ``forward`` makes and leaves there, for the backward pass or as its result."""
    with counted(device) as live:
        result = forward()
        total = live.now
        del result
    return total


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    own = scale or 1 / math.sqrt(query.shape[-1])
    answer = fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=own)
    return cast(Tensor, answer[0])
