"""Where a training of K experiments stands: what going on needs, beside its settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from pti_pipeline.errors import ModelError

PATIENCE = 50
"""Steps over which the loss must beat that of predicting nothing."""

MEMORY = "memory."
"""What the names of :attr:`State.memory` begin with where all tensors are kept."""

OTHERS = ("memory", "step")
"""What of a state is no tensor."""


@dataclass(eq=False)
class State:
    """Tensors that an update changes, of K experiments with P parameters each.

    Attributes
    ----------
    values : Tensor, shape (K, P)
        Parameters; empty until :meth:`bind`.
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
    memory : dict of str to Tensor, each of shape (K, ...)
        What an optimizer or an average remembers from step to step; see :meth:`kept`.
    step : int
        Number of updates done.
    """

    values: Tensor
    margins: Tensor
    bound: Tensor
    alive: Tensor
    stop: Tensor
    path: Tensor
    nominal: Tensor
    term: Tensor
    edges: Tensor
    rows: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    @classmethod
    def begin(cls, experiments: int, device: torch.device | str = "cpu") -> State:
        """Return the state of a training before its first step."""
        one = torch.ones(experiments, device=device)
        none = one.new_empty(experiments, 0)
        yes, zero = one.bool(), one.double() * 0
        margins = one.new_full((PATIENCE, experiments), -math.inf)
        empty = torch.empty(0, dtype=torch.int64)
        moved = none, margins, one, yes, ~yes, zero, zero.clone(), one * 0
        return cls(*moved, empty, empty.clone())

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], step: int, device: torch.device | str) -> State:
        """Return the state of which :meth:`tensors` were kept; the next update is ``step``."""
        split = ("edges", "rows")  # what the host looks at
        found = {name: t if name in split else t.to(device) for name, t in tensors.items()}
        inner = {name for name in found if name.startswith(MEMORY)}
        memory = {name.removeprefix(MEMORY): found.pop(name) for name in sorted(inner)}
        return cls(**found, memory=memory, step=step)

    def tensors(self) -> dict[str, Tensor]:
        """Give the tensors by name; later updates change them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in OTHERS}
        return own | {MEMORY + name: tensor for name, tensor in self.memory.items()}

    def kept(self, name: str, begin: Callable[[], Tensor]) -> Tensor:
        """Tensor that is remembered under a name, to be changed in place; at first ``begin()``.

        Raises
        ------
        ModelError
            If the training is past its first step: what follows would be another one.
        """
        if name not in self.memory:
            if self.step:
                what = f"the checkpoint of step {self.step} lacks {MEMORY}{name}"
                raise ModelError("E428", what, "say --resume=no to train anew")
            self.memory[name] = begin()
        return self.memory[name]

    def bind(self, parameters: Sequence[Tensor]) -> None:
        """Make parameters, each of shape (K, ...), views of ``values``.

        Before the first step they keep what they hold; in a training that goes on they get back
        what they held. So one operation serves each experiment's learning rate, norm and step.
        """
        if not self.values.numel():
            self.values = torch.cat([p.detach().flatten(1) for p in parameters], 1)
        offset = 0
        for p in parameters:
            window = slice(offset, offset := offset + math.prod(p.shape[1:]))
            p.requires_grad_(False).set_(self.values[:, window].unflatten(1, p.shape[1:]))
            p.requires_grad_(True)
