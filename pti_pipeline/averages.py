"""Averages over the updates of a training, shown and kept in place of its last values.

While losses and an update are computed the parameters hold the values themselves; between updates
they hold the exponential moving average of these, so that whatever looks at them sees that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pti_pipeline.state import State


def warmed(decay: Tensor, count: int) -> Tensor:
    """Decay at update ``count``, from 1: it grows to ``decay``, as in diffusers' ``EMAModel``."""
    step = count - 1
    return decay.clamp(max=(1 + step) / (10 + step) if step else 0.0)


@torch.no_grad()
def uncover(state: State) -> Tensor:
    """Put the values where their average is; return the average, (K, P)."""
    average = state.values.clone()
    state.values.copy_(state.kept("uncovered", average.clone))
    return average


@torch.no_grad()
def cover(state: State, average: Tensor, decay: Sequence[float], moved: Tensor) -> None:
    """Take the values into the average of those that ``moved``, and put that in their place.

    Where the decay is 0, the average is the values, bit for bit.
    """
    state.memory["uncovered"].copy_(state.values)
    share = 1 - warmed(average.new_tensor(decay), state.step)
    now = average.lerp(state.values, share[:, None])
    state.values.copy_(now.where(moved[:, None], average))
