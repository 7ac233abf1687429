"""Where a training of K experiments stands: what going on needs, beside its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

PATIENCE = 50
"""Steps over which the loss must beat that of predicting nothing."""


@dataclass(eq=False)
class State:
    """Tensors that an update changes, of K experiments with P parameters each.

    Attributes
    ----------
    values, mean, variance : Tensor, shape (K, P)
        Parameters, and the means of Adam (Kingma & Ba 2015) over their gradients and its squares;
        empty until :meth:`bind`.
    margins : Tensor, shape (PATIENCE, K)
        By how much each of the last losses was above that of predicting nothing.
    bound : Tensor, shape (K,)
        What that is multiplied by.
    alive, stop : Tensor of bool, shape (K,)
        ``alive`` is False of what diverged. ``stop`` may be set between updates, for those that
        are to stay as they are.
    path, nominal : Tensor, shape (K,), float64
        Sums of the steps' lengths, and of the learning rates.
    term : Tensor, shape (K,)
        Last loss of the regularizer.
    edges, rows : Tensor of int64, shape (passes + 1,)
        Experiments at which passes begin, and K; and rows of each one's batch at which pieces of
        them begin, and its size. Empty until the first step. Other passes would round otherwise.
    step : int
        Number of updates done.
    """

    values: Tensor
    mean: Tensor
    variance: Tensor
    margins: Tensor
    bound: Tensor
    alive: Tensor
    stop: Tensor
    path: Tensor
    nominal: Tensor
    term: Tensor
    edges: Tensor
    rows: Tensor
    step: int = 0

    @classmethod
    def begin(cls, experiments: int, device: torch.device | str = "cpu") -> State:
        """Return the state of a training before its first step."""
        one = torch.ones(experiments, device=device)
        none = one.new_empty(experiments, 0)
        yes, zero = one.bool(), one.double() * 0
        margins = one.new_full((PATIENCE, experiments), -math.inf)
        empty = torch.empty(0, dtype=torch.int64)
        moved = none, none, none, margins, one, yes, ~yes, zero, zero.clone(), one * 0
        return cls(*moved, empty, empty.clone())

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], step: int, device: torch.device | str) -> State:
        """Return the state of which :meth:`tensors` were kept; the next update is ``step``."""
        split = ("edges", "rows")  # what the host looks at
        found = {name: t if name in split else t.to(device) for name, t in tensors.items()}
        return cls(**found, step=step)

    def tensors(self) -> dict[str, Tensor]:
        """Give the tensors by name; later updates change them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "step"}

    def bind(self, parameters: Sequence[Tensor]) -> None:
        """Make parameters, each of shape (K, ...), views of ``values``.

        Before the first step they keep what they hold; in a training that goes on they get back
        what they held. So one operation serves each experiment's learning rate, norm and step.
        """
        if not self.values.numel():
            self.values = torch.cat([p.detach().flatten(1) for p in parameters], 1)
            self.mean, self.variance = (torch.zeros_like(self.values) for _ in range(2))
        offset = 0
        for p in parameters:
            window = slice(offset, offset := offset + math.prod(p.shape[1:]))
            p.requires_grad_(False).set_(self.values[:, window].unflatten(1, p.shape[1:]))
            p.requires_grad_(True)
