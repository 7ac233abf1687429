"""The training loop: K experiments in one flat optimizer, as a generator of records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pti_pipeline import averages, memory
from pti_pipeline.optimizers import ADAM, Manner, update
from pti_pipeline.settings import TrainSettings
from pti_pipeline.state import PATIENCE, State


@dataclass(frozen=True)
class Losses:
    """Of K experiments at one step, or the share of some rows in them; each of shape (K,).

    Attributes
    ----------
    own : Tensor
        Of their pictures.
    nothing : Tensor
        What ``own`` would be if they predicted nothing.
    term : Tensor
        Of the regularizer.
    weight : Tensor
        Of ``term``, beside 1 for ``own``.
    """

    own: Tensor
    nothing: Tensor
    term: Tensor
    weight: Tensor

    @classmethod
    def plain(cls, own: Tensor, nothing: Tensor) -> Losses:
        """Losses without a regularizer."""
        return cls(own, nothing, torch.zeros_like(own), torch.zeros_like(own))

    @property
    def total(self) -> Tensor:
        """What is descended."""
        return self.own + self.weight * self.term


Loss = Callable[[int, slice, slice], Losses]
"""``loss(step, part, rows)``: what some rows of each one's batch add to the losses of the
experiments in ``part``."""


@dataclass(frozen=True)
class Record:
    """What one optimizer update did; tensors stay on the device, of shape (K,).

    Attributes
    ----------
    step : int
        Number of updates done, from 1.
    loss, term : Tensor
        Before the update: of the pictures, and of the regularizer.
    lr : Tensor
        Learning rate applied, of Prodigy times its own estimate.
    alive : Tensor of bool
        False from the update on that found an experiment diverged: it is frozen.
    going : Tensor of bool
        Which experiments this update changed: False once one has diverged or was stopped.
    """

    step: int
    loss: Tensor
    term: Tensor
    lr: Tensor
    alive: Tensor
    going: Tensor


def rates(experiments: Sequence[TrainSettings], like: Tensor) -> tuple[Tensor, Tensor]:
    """Learning rate and largest gradient norm of each experiment, shape (K,), as ``like`` is."""
    lr, clip = [e.lr for e in experiments], [e.clip or math.inf for e in experiments]
    return like.new_tensor(lr), like.new_tensor(clip)


def manner_of(
    experiments: Sequence[TrainSettings], scale: float, decay: Sequence[float] = ()
) -> Manner:
    """How experiments of one pack are updated."""
    first, ema = experiments[0], tuple(e.ema for e in experiments)
    return Manner(first.optimizer, tuple(decay), ema, first.micro_batch, scale)


def bounds(experiments: Sequence[TrainSettings], like: Tensor) -> Tensor:
    """Distance at which each experiment stops or is held, infinite by default; (K,), float64."""
    limits = [e.until_distance or math.inf for e in experiments]
    return torch.tensor(limits, dtype=torch.float64, device=like.device)


def learning(state: State, losses: Tensor, nothing: Tensor) -> Tensor:
    """Whether each loss is finite and, over :data:`PATIENCE` steps, below that of nothing; (K,).

    A learning rate that is too large often gives no NaN, only predictions worse than none. A base
    model that is itself no better (a tiny random one) is held against twice its own first loss.
    """
    if state.step == 0:
        state.bound = (2 * losses / nothing).clamp(min=1)
    state.margins[state.step % PATIENCE] = losses - state.bound * nothing
    return losses.isfinite() & ~(state.margins.mean(0) > 0)


def optimise(
    parameters: Sequence[Tensor],
    loss: Loss,
    lr: Tensor,
    steps: int,
    clip: Tensor | float = math.inf,
    settle: Callable[[], Tensor] | None = None,
    state: State | None = None,
    rows: int = 1,
    manner: Manner = ADAM,
) -> Iterator[Record]:
    """Train K experiments together, exactly as if each were alone.

    An experiment has diverged, and keeps the values it had, once its loss or gradient is not
    finite, its loss over 50 steps is above that of predicting nothing, or it is no longer sound.
    Nothing of it reaches the others.

    Parameters
    ----------
    parameters : sequence of Tensor, each of shape (K, ...)
        Updated in place.
    loss : callable
        ``loss(step, part, rows)`` gives the losses of the experiments in the slice ``part`` at
        update ``step`` (from 0), as far as they come from the slice ``rows`` of each one's batch:
        over all rows they add up. The sum of their totals is backpropagated, and no term of it
        mixes experiments.
    lr : Tensor, shape (K,)
    steps : int
    clip : Tensor, shape (K,), or float
        Largest norm of an experiment's gradient.
    settle : callable, optional
        Called after each update: may move parameters back within bounds, and tells, shape (K,),
        which experiments are sound.
    state : State, optional
        Where to begin, bound to ``parameters``; kept up to date.
    rows : int
        Size of each experiment's batch.
    manner : Manner
        How the parameters are updated; by Adam by default.

    Yields
    ------
    Record
        Without waiting for the device.

    Raises
    ------
    ResourceError
        If not even one row of one experiment fits into memory.

    Notes
    -----
    As many experiments share a pass as fit into memory (:func:`memory.together`); should memory
    run out all the same, the step is taken again in passes of half as many, or of half the rows of
    one: its batch stays what it is.
    """
    if state is None:
        state = State.begin(len(lr), lr.device)
        state.bind(parameters)
    clip = torch.as_tensor(clip, dtype=lr.dtype, device=lr.device).expand_as(lr)
    if not len(state.edges):
        pieces = memory.edges_of(rows, manner.piece or rows)
        first = slice(*pieces[:2])

        def work(part: slice) -> object:
            total = loss(0, part, first).total.sum()
            return torch.autograd.grad(total, parameters, materialize_grads=True)

        edges = memory.together(len(lr), work, lr.device)
        state.edges, state.rows = torch.tensor(edges), torch.tensor(pieces)
    averaged = any(manner.ema)
    while state.step < steps:
        average = averages.uncover(state) if averaged else state.values
        descend = partial(_descend, parameters, loss, state.step, manner.scale)
        before = state.edges.tolist(), state.rows.tolist()
        *split, ((own, nothing, term), gradients) = memory.halving(*before, descend)
        state.edges, state.rows = (torch.tensor(edges) for edges in split)
        going = state.alive & learning(state, own, nothing) & ~state.stop
        moved, applied = update(state, gradients, going, lr, clip, manner)
        moved = moved & _settled(state, settle, moved)
        if averaged:
            averages.cover(state, average, manner.ema, moved)
            _settled(state, settle, moved & (lr.new_tensor(manner.ema) > 0))
        state.alive = state.alive & (moved | state.stop)
        yield Record(state.step, own, term, applied, state.alive, moved)


@torch.no_grad()
def _settled(state: State, settle: Callable[[], Tensor] | None, moved: Tensor) -> Tensor:
    """Settle the experiments that moved, the others keep every bit; tell which are sound, (K,)."""
    if settle is None:
        return torch.ones_like(moved)
    before = state.values.clone()
    sound = settle()
    state.values.copy_(state.values.where(moved[:, None], before))
    return sound


def _descend(
    parameters: Sequence[Tensor],
    loss: Loss,
    step: int,
    scale: float,
    passes: Sequence[memory.Pass],
) -> tuple[Tensor, list[Tensor]]:
    """Losses of all experiments (own, nothing, term), (3, K), and gradients, pass by pass."""
    answers, total = dict[int, Tensor](), list[Tensor]()
    for part, rows in passes:
        losses = loss(step, part, rows)
        total_of = losses.total.sum() * scale
        gradients = torch.autograd.grad(total_of, parameters, materialize_grads=True)
        # an experiment's gradient is zero in every pass but its own
        total = [a + b for a, b in zip(total, gradients, strict=True)] if total else [*gradients]
        told = torch.stack([a.detach() for a in (losses.own, losses.nothing, losses.term)])
        first = part.start
        answers[first] = answers[first] + told if first in answers else told
    if scale != 1:
        total = [gradient / scale for gradient in total]
    return torch.cat([*answers.values()], 1), total
