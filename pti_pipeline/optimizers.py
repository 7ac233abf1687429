"""Optimizers of K experiments at once; a new one is one function and one line in OPTIMIZERS.

Each experiment has its own learning rate and everything else of its own: nothing here mixes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pti_pipeline.blockwise import dequantize, quantize
from pti_pipeline.state import State

BETAS = (0.9, 0.999)
"""Decay of Adam's means over the gradients, and over their squares."""
EPS = 1e-8
MEANS = {"mean": True, "variance": False}
"""Adam's, and which of them have a sign."""
FIRST = 1e-6
"""Prodigy's first estimate of the distance to the solution, d0."""

Optimizer = Callable[[State, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``optimizer(state, gradient, lr)``: of a gradient (K, P), what is to be taken off the values
(K, P), and the learning rates (K,) that this applies."""


@dataclass(frozen=True)
class Manner:
    """How experiments are updated.

    Attributes
    ----------
    optimizer : str
        One of :data:`OPTIMIZERS`.
    decay : tuple of float, length K
        Share of each value that a step takes off, in learning rates: the decoupled weight decay of
        Loshchilov & Hutter (2019). Empty for none.
    ema : tuple of float, length K
        Decay of the average that is shown in place of the values, 0 for the values themselves; see
        :mod:`pti_pipeline.averages`. Empty for none.
    piece : int
        Rows of each one's batch in a pass at most; 0 for as many as memory holds.
    scale : float
        What losses are multiplied by on the way back, and gradients divided by; see
        :func:`pti_pipeline.losses.scale_of`.
    """

    optimizer: str = "adam"
    decay: tuple[float, ...] = ()
    ema: tuple[float, ...] = ()
    piece: int = 0
    scale: float = 1.0


ADAM = Manner()
"""As usual."""


def adam(state: State, gradient: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
    """Adam (Kingma & Ba 2015)."""
    begin = partial(torch.zeros_like, state.values)
    mean, variance = state.kept("mean", begin), state.kept("variance", begin)
    return _adams_step(mean, variance, gradient, lr, state.step + 1), lr


def adam_8bit(state: State, gradient: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
    """Adam whose means are kept in 8 bits (Dettmers et al. 2022); see :mod:`.blockwise`.

    A step is computed from the means as they are before they are written in 8 bits again.
    """
    count = state.values.shape[1]
    means = []
    for name, signed in MEANS.items():
        begin = quantize(torch.zeros_like(state.values), signed)
        codes, scales = (
            state.kept(f"{name}.{part}", start.clone)
            for part, start in zip(("codes", "scales"), begin, strict=True)
        )
        means.append(dequantize(codes, scales, signed, count))
    step = _adams_step(means[0], means[1], gradient, lr, state.step + 1)
    for (name, signed), mean in zip(MEANS.items(), means, strict=True):
        state.memory[f"{name}.codes"], state.memory[f"{name}.scales"] = quantize(mean, signed)
    return step, lr


def prodigy(state: State, gradient: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
    r"""Prodigy (Mishchenko & Defazio 2024, algorithm 4): Adam that finds its own learning rate.

    That is ``lr`` times an estimate d of the distance from start to solution, which only grows:

    .. math:: d \ge \frac{\sum_i w_i \langle g_i, x_0 - x_i \rangle}{\|\sum_i w_i g_i\|_1}, \quad
              w_i \propto \beta_3^{n - i} d_i^2 \, lr, \quad \beta_3 = \sqrt{\beta_2}

    As in the authors' package ``prodigyopt`` with its defaults: no correction of the means' bias.
    """
    values, begin = state.values, partial(torch.zeros_like, state.values)
    start, mean = state.kept("start", values.clone), state.kept("mean", begin)
    variance, pull = state.kept("variance", begin), state.kept("pull", begin)
    gain = state.kept("gain", lambda: torch.zeros_like(lr, dtype=torch.float64))
    d = state.kept("estimate", lambda: torch.full_like(lr, FIRST, dtype=torch.float64))

    def column(numbers: Tensor) -> Tensor:
        return numbers[:, None].to(values.dtype)

    beta3, applied = BETAS[1] ** 0.5, d * lr
    weight = d / FIRST * applied  # over FIRST, so that it is not too small a number
    inner = (gradient * (start - values)).sum(1, dtype=torch.float64)
    gain.mul_(beta3).add_(weight * inner)
    mean.mul_(BETAS[0]).addcmul_(column(d * (1 - BETAS[0])), gradient)
    variance.mul_(BETAS[1]).addcmul_(column(d**2 * (1 - BETAS[1])), gradient**2)
    pull.mul_(beta3).addcmul_(column(weight), gradient)
    # without any gradient yet the quotient is 0 / 0, which fmax leaves out
    d.copy_(torch.fmax(d, gain / pull.abs().sum(1, dtype=torch.float64)))
    return column(applied) * mean / (variance.sqrt() + column(d * EPS)), applied


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": adam,
    "adam-8bit": adam_8bit,
    "prodigy": prodigy,
}
"""By the names of :data:`pti_pipeline.settings.OPTIMIZERS`."""


@torch.no_grad()
def update(
    state: State,
    gradients: Sequence[Tensor],
    going: Tensor,
    lr: Tensor,
    clip: Tensor,
    manner: Manner,
) -> tuple[Tensor, Tensor]:
    """Update the experiments of ``going`` that have a finite gradient.

    ``clip`` (K,) bounds the norm of each experiment's own gradient, infinity leaves it alone: a
    bound on the norm of all would mix experiments.

    Returns
    -------
    moved : Tensor of bool, shape (K,)
        Which were updated.
    applied : Tensor, shape (K,)
        Their learning rates.
    """
    flat = torch.cat([g.flatten(1) for g in gradients], 1)
    norm = flat.norm(dim=1, keepdim=True)
    moved = going & norm[:, 0].isfinite()
    flat = flat * (clip[:, None] / norm).clamp(max=1).nan_to_num(1.0)
    step, applied = OPTIMIZERS[manner.optimizer](state, flat, lr)
    if any(manner.decay):
        shares = applied * applied.new_tensor(manner.decay)
        step = step + shares[:, None].to(step.dtype) * state.values
    state.values.sub_(step.where(moved[:, None], 0))
    state.step += 1
    return moved, applied


def _adams_step(mean: Tensor, variance: Tensor, gradient: Tensor, lr: Tensor, count: int) -> Tensor:
    """Step ``count``, from 1; the means are updated in place."""
    mean.lerp_(gradient, 1 - BETAS[0])
    variance.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    spread = (variance / (1 - BETAS[1] ** count)).sqrt_().add_(EPS)
    return lr[:, None] / (1 - BETAS[0] ** count) * mean / spread
