"""The training loop: K experiments in one flat optimizer, as a generator of records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """What one optimizer update did; tensors stay on the device, of shape (K,).

    Attributes
    ----------
    step : int
        Number of updates done, from 1.
    loss : Tensor
        Before the update.
    lr : Tensor
        Learning rate applied.
    stride : Tensor
        L2 norm of the update over all of an experiment's parameters.
    """

    step: int
    loss: Tensor
    lr: Tensor
    stride: Tensor


class FlatAdam:
    """Adam (Kingma & Ba 2015) over K experiments, each with its own learning rate.

    All parameters lie in one (K, P) buffer and the given tensors become views of it, so that a
    learning rate, a norm or a step length is one operation for each experiment apart.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: Tensor) -> None:
        self.lr, self.updates = lr[:, None], 0
        self.values = torch.cat([p.detach().flatten(1) for p in parameters], 1)
        self.mean, self.variance = (torch.zeros_like(self.values) for _ in range(2))
        offset = 0
        for p in parameters:
            window = slice(offset, offset := offset + math.prod(p.shape[1:]))
            p.requires_grad_(False).set_(self.values[:, window].unflatten(1, p.shape[1:]))
            p.requires_grad_(True)

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> Tensor:
        """Update the parameters and return each experiment's step length, shape (K,)."""
        self.updates += 1
        flat = torch.cat([g.flatten(1) for g in gradients], 1)
        self.mean.lerp_(flat, 1 - betas[0])
        self.variance.mul_(betas[1]).addcmul_(flat, flat, value=1 - betas[1])
        spread = (self.variance / (1 - betas[1] ** self.updates)).sqrt_().add_(eps)
        update = self.lr / (1 - betas[0] ** self.updates) * self.mean / spread
        self.values.sub_(update)
        return update.norm(dim=1)


def optimise(
    parameters: Sequence[Tensor], loss: Callable[[int], Tensor], lr: Tensor, steps: int
) -> Iterator[Record]:
    """Train K experiments together, exactly as if each were alone.

    Parameters
    ----------
    parameters : sequence of Tensor, each of shape (K, ...)
        Updated in place.
    loss : callable
        ``loss(step)`` gives the K losses of update ``step`` (from 0); their sum is
        backpropagated, and no term of it mixes experiments.
    lr : Tensor, shape (K,)
    steps : int

    Yields
    ------
    Record
        Without waiting for the device.
    """
    optimizer = FlatAdam(parameters, lr)
    for step in range(steps):
        losses = loss(step)
        gradients = torch.autograd.grad(losses.sum(), parameters)
        yield Record(step + 1, losses.detach(), lr, optimizer.step(gradients))
