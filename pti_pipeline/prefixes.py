"""One run as a curve: experiments that differ in their steps alone share one training.

A training of 100 steps is the beginning of one of 1000 with the same settings, bit for bit, so only
the longest is computed and the others are where it was on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from pti_pipeline.inversion import Moment
from pti_pipeline.settings import TrainSettings

Settings = TypeVar("Settings", bound=TrainSettings)


@dataclass(frozen=True)
class Shared(Generic[Settings]):
    """Experiments, and the trainings that they are parts of.

    Attributes
    ----------
    trained : tuple of TrainSettings
        What is computed: of each group, the longest.
    owner : tuple of int, length K
        Training that each experiment is a part of.
    ends : tuple of int, length K
        Step at which each experiment ends.
    """

    trained: tuple[Settings, ...]
    owner: tuple[int, ...]
    ends: tuple[int, ...]

    def running(self, step: int) -> list[tuple[int, int]]:
        """Experiments that have not ended before ``step``, each with its training."""
        return [(k, owner) for k, owner in enumerate(self.owner) if step <= self.ends[k]]

    def ending(self, step: int) -> list[tuple[int, int]]:
        """Experiments that end at ``step``, each with its training."""
        return [(k, owner) for k, owner in self.running(step) if self.ends[k] == step]


def share(experiments: Sequence[Settings]) -> Shared[Settings]:
    """Find what is to be trained for experiments of any numbers of steps.

    Examples
    --------
    >>> from pti_pipeline.settings import InvertSettings
    >>> runs = [InvertSettings(lr, steps=n) for lr in (0.1, 0.2) for n in (10, 100)]
    >>> found = share(runs)
    >>> [(e.lr, e.steps) for e in found.trained], found.owner, found.ends
    ([(0.1, 100), (0.2, 100)], (0, 0, 1, 1), (10, 100, 10, 100))
    """
    longest = max(e.steps for e in experiments)
    whole = [replace(e, steps=longest) for e in experiments]
    trained = tuple(dict.fromkeys(whole))
    owner = tuple(trained.index(e) for e in whole)
    return Shared(trained, owner, tuple(e.steps for e in experiments))


def spread(
    moments: Iterable[Moment], shared: Shared[Settings], dead: Iterable[int] = ()
) -> Iterator[Moment]:
    """Tell what trainings do as what each experiment does, up to its own end.

    Of a training that goes on, ``dead`` are the experiments that had diverged.
    """
    gone = set(dead)
    alive: torch.Tensor = torch.tensor([k not in gone for k in range(len(shared.owner))])
    for moment in moments:
        device = moment.alive.device
        owner = torch.tensor(shared.owner, device=device)
        running = torch.tensor([moment.step <= end for end in shared.ends], device=device)
        alive = torch.where(running, moment.alive[owner], alive.to(device))
        yield Moment(
            moment.step,
            {name: values[owner] for name, values in moment.metrics.items()},
            {name: values[owner] for name, values in moment.derived.items()},
            alive,
            moment.going[owner] & running,
        )
