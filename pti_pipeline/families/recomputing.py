"""Gradient checkpointing (Chen et al. 2016) of a model's blocks, whichever library they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

Around = tuple[AbstractContextManager[object], AbstractContextManager[object]]
"""What is around a block's run, and around its run anew in the backward pass."""

FLAGS = ("training", "gradient_checkpointing", "_gradient_checkpointing_func")
"""What blocks of both libraries look at."""


@contextmanager
def recomputed(
    models: Sequence[nn.Module], around: Callable[[], Around] = noop_context_fn
) -> Iterator[None]:
    """Let the blocks of frozen models keep only what comes into them, of what runs meanwhile.

    What the backward pass needs beside that it computes anew: the gradients are the same. It may
    come later, when the models are again as they were.

    Parameters
    ----------
    models : sequence of nn.Module
        Of diffusers or transformers. The latter's blocks ask to be in training mode; the layers
        within them stay as they are, so that dropout stays off.
    around : callable, optional
        Called where a block runs.
    """
    run = partial(checkpoint, use_reentrant=False, preserve_rng_state=False, context_fn=around)
    blocks = [b for m in models for b in m.modules() if hasattr(b, "gradient_checkpointing")]
    before = [{name: vars(b)[name] for name in FLAGS if name in vars(b)} for b in blocks]
    for block in blocks:
        vars(block).update(zip(FLAGS, (True, True, run), strict=True))
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            for name in FLAGS:
                del vars(block)[name]
            vars(block).update(own)
