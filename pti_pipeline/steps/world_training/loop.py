"""The one training loop of the world's models: seeded, resumable, on any number of ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pti_pipeline.checkpoint import newest, optimizer_tensors, restore_optimizer, save
from pti_pipeline.errors import UsageError
from pti_pipeline.families import choose_device


@dataclass(frozen=True)
class Schedule:
    """How one part of the world is trained.

    Attributes
    ----------
    steps : int
        Optimizer updates.
    batch : int
        Samples of one update, over all ranks together.
    lr : float
        Peak learning rate: linear warm-up over 200 steps, flat, then linear to 2 % of it
        over the last ``1 - flat`` of the steps.
    flat : float
        Share of the steps after which the learning rate falls.
    decay : float
        Of the exponential moving average of the weights; 0 keeps no average.
    """

    steps: int
    batch: int
    lr: float
    flat: float = 0.6
    decay: float = 0.0

    def lr_at(self, step: int) -> float:
        """Learning rate of update ``step`` (0-based)."""
        left = (self.steps - step) / max(1.0, self.steps * (1 - self.flat))
        return self.lr * min(1.0, (step + 1) / 200) * max(0.02, min(1.0, left))


@dataclass(frozen=True)
class Progress:
    """One line of a training's log: mean loss since the last one, and samples per second."""

    part: str
    step: int
    steps: int
    loss: float
    rate: float


def rank() -> int:
    """Return this process's number among those that train together (0 when alone)."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Return where the world trains: the GPU if there is one."""
    return choose_device("auto")


class Descent:
    """One update of a model: Muon for its matrices and kernels, AdamW for all else.

    Muon (Jordan et al. 2024) steps along the nearest orthogonal matrix to the momentum; its steps
    are scaled to be as long as AdamW's (Liu et al. 2025, section 2.2), so that both share one
    learning rate. Kernels are taken as matrices of one row for each output channel.
    """

    def __init__(self, model: nn.Module, lr: float) -> None:
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        self.kernels = [m.weight for m in layers if m.weight.requires_grad]
        mine = {id(kernel) for kernel in self.kernels}
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        others = [p for p in self.parameters if id(p) not in mine]
        # the same memory, seen as matrices
        self.matrices = [nn.Parameter(k.detach().view(len(k), -1)) for k in self.kernels]
        self.optimizers = {
            "muon": torch.optim.Muon(
                self.matrices, lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
            ),
            "adamw": torch.optim.AdamW(others, lr, betas=(0.9, 0.99), weight_decay=1e-4),
        }

    def step(self, lr: float) -> None:
        """Descend along the parameters' gradients, clipped to a norm of 1, and clear them."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.view_as(matrix)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """State of both optimizers."""
        return {
            f"{name}/{key}": tensor
            for name, optimizer in self.optimizers.items()
            for key, tensor in optimizer_tensors(optimizer).items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave."""
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, _under(f"{name}/", tensors))


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks, in one flat message."""
    if ranks() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(
        gradients, flat.div_(ranks()).split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))


def train(
    part: str,
    model: nn.Module,
    loss: Callable[[int, int], Tensor],
    schedule: Schedule,
    folder: Path,
    log_every: int = 50,
    save_seconds: float = 30.0,
) -> Iterator[Progress]:
    """Train ``model`` in place and leave its (averaged) weights in it; resume where it stopped.

    Parameters
    ----------
    part : str
        Name of the part; its checkpoints are in ``folder/<part>.state``.
    model : nn.Module
        Parameters that require a gradient are trained.
    loss : callable
        ``loss(step, rows)`` gives the scalar loss, on :func:`device`, of this rank's ``rows``
        samples of update ``step``; it draws what it needs from the step's number, so a resumed
        training repeats nothing and skips nothing.
    schedule, folder
        See :class:`Schedule`; the folder of the training's state.
    log_every : int
        Updates between two yields.
    save_seconds : float
        Seconds between two saves at least: they are made after a yield, and at the end.

    Yields
    ------
    Progress
    """
    path = folder / f"{part}.state"
    model.to(device())
    descent = Descent(model, schedule.lr)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    start = 0
    if known := newest(path):
        tensors, start = known.tensors, known.step
        model.load_state_dict(_under("model/", tensors))
        average = {k: v.to(device()) for k, v in _under("average/", tensors).items()}
        state = _under("optimizer/", tensors)
        if start and not {name.split("/")[0] for name in state} >= set(descent.optimizers):
            raise UsageError(
                "E222", f"'{path}' is of another version's training", "train in a new --folder"
            )
        descent.restore(state)
    saved = clock = time.monotonic()
    losses: list[Tensor] = []
    for step in range(start, schedule.steps):
        value = loss(step, schedule.batch // ranks())
        value.backward()
        average_gradients(descent.parameters)
        descent.step(schedule.lr_at(step))
        _track(average, model, min(schedule.decay, (step + 1) / (step + 10)))
        losses.append(value.detach())
        done = step + 1
        if done % log_every == 0 or done == schedule.steps:
            now = time.monotonic()
            speed = len(losses) * schedule.batch / (now - clock)
            yield Progress(part, done, schedule.steps, float(torch.stack(losses).mean()), speed)
            clock, losses = now, []
            if rank() == 0 and (now - saved > save_seconds or done == schedule.steps):
                _save(path, model, average, descent, done)
                saved = time.monotonic()
    model.load_state_dict(average)
    model.cpu()


def _track(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value.detach(), 1 - decay)


def _save(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    descent: Descent,
    step: int,
) -> None:
    state = {f"model/{k}": v for k, v in model.state_dict().items()}
    state |= {f"average/{k}": v for k, v in average.items()}
    state |= {f"optimizer/{k}": v for k, v in descent.tensors().items()}
    save(path, step, state)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
