"""The runs of a pack: K experiments trained in one pass, each with a run of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pti_pipeline.errors import StoreError
from pti_pipeline.inversion import Moment
from pti_pipeline.prefixes import Settings, Shared
from pti_pipeline.progress import tqdm
from pti_pipeline.state import State
from pti_pipeline.tracking.earlier import Earlier
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.runs import opened
from pti_pipeline.values import own_number

EVERY = 50
"""Steps whose numbers are fetched from the device and logged together."""
SPARSE = 10
"""Steps between two logs of what follows from other numbers: MLflow's price is one of numbers."""


@dataclass(frozen=True)
class Course:
    """What became of experiments: the step at which one was ``frozen``, and its ``last`` one."""

    frozen: dict[int, int]
    last: dict[int, int]


@dataclass(frozen=True, eq=False)
class View:
    """Something to look at on the way.

    Attributes
    ----------
    steps : frozenset of int
        Where; also at the end of a training that was stopped. Nowhere if empty.
    log : callable
        Looks and logs: given the runs and the step.
    """

    steps: frozenset[int]
    log: Callable[[Sequence[Run], int], None]


def grid_view(
    every: int, shared: Shared[Settings], grids: Callable[[], Sequence[NDArray[np.uint8]]]
) -> View:
    """View of one sample grid for each run, ``every`` some steps (0: never) and at its end."""

    def log(runs: Sequence[Run], step: int) -> None:
        pictures = grids()
        for k, owner in shared.running(step):
            runs[k].log_image("samples", pictures[owner], step)

    last = max(shared.ends)
    return View(frozenset([*range(every, last, every)] if every else []) | set(shared.ends), log)


def metric_view(
    steps: Iterable[int],
    shared: Shared[Settings],
    rows: Callable[[int], Sequence[Mapping[str, float]]],
) -> View:
    """View of some metrics of each run, at ``steps`` and at its end."""

    def log(runs: Sequence[Run], step: int) -> None:
        values = rows(step)
        for k, owner in shared.running(step):
            runs[k].log_metrics(values[owner], step)

    return View(frozenset(steps) | set(shared.ends), log)


def ending_view(shared: Shared[Settings], state: State, keep: Callable[[int, int], None]) -> View:
    """View of each experiment's end: ``keep(k, owner)`` unless experiment k has diverged."""

    def log(_: Sequence[Run], step: int) -> None:
        for k, owner in shared.ending(step):
            if bool(state.alive[owner]):
                keep(k, owner)

    return View(frozenset(shared.ends), log)


def tell_micro_batches(runs: Sequence[Run], state: State) -> None:
    """Tag runs whose batches had to be taken in pieces: rounding differs from whole ones."""
    if len(state.rows) > 2:
        for run in runs:
            run.set_tags({"pti.micro_batch": int(state.rows.diff().max())})


def stopped(shared: Shared[Settings], state: State, course: Course) -> Iterator[tuple[int, int]]:
    """Experiments, with their trainings, whose end was not reached as all had been stopped."""
    for k, owner in enumerate(shared.owner):
        if shared.ends[k] > state.step and k not in course.frozen:
            yield k, owner


@contextmanager
def open_runs(
    names: Sequence[str],
    params: Sequence[Mapping[str, object]],
    tags: Sequence[Mapping[str, object]],
    own: bool,
    earlier: Sequence[Earlier | None] = (),
) -> Iterator[list[Run]]:
    """Open one run for each experiment; they end together. See :func:`open_run`."""
    trouble: list[StoreError] = []
    rows = zip(names, params, tags, earlier or [None] * len(names), strict=True)
    with ExitStack() as stack:
        yield [
            stack.enter_context(opened(name, words, marks, own, before, trouble))
            for name, words, marks, before in rows
        ]
    for error in trouble:
        raise error


def recorded(runs: Sequence[Run], moments: Iterable[Moment], course: Course) -> Iterator[Moment]:
    """Pass moments on, logging each experiment's numbers in its run, :data:`EVERY` at a time.

    The numbers of an experiment that diverged or was stopped end there, as ``course`` tells. When
    none is left, the training ends.
    """
    waiting: list[Moment] = []
    clock = time.perf_counter()
    for moment in moments:
        waiting.append(moment)
        if len(waiting) == EVERY:
            now = time.perf_counter()
            _log(runs, waiting, (now - clock) / EVERY, course)
            waiting, clock = [], now
            if not bool(moment.going.any()):
                yield moment
                return
        yield moment
    if waiting:
        _log(runs, waiting, (time.perf_counter() - clock) / len(waiting), course)


def follow(
    runs: Sequence[Run],
    moments: Iterable[Moment],
    label: str,
    shared: Shared[Settings],
    views: Sequence[View],
    course: Course | None = None,
    start: int = 0,
) -> dict[int, int]:
    """Train to the end under a progress bar, logging numbers and what is looked at on the way.

    Parameters
    ----------
    runs : sequence of Run, length K
    moments : iterable of Moment
        The training; consuming it trains.
    label : str
        Of the progress bar.
    shared : Shared
        Where each experiment ends, unless it is stopped before.
    views : sequence of View
        At one step, looked at in this order.
    course : Course, optional
        Of a training that goes on: what became of its experiments before; kept up to date.
    start : int
        Updates done before.

    Returns
    -------
    dict of int to int
        Of each experiment that diverged, the step at which it was frozen.
    """
    course = course or Course({}, {})
    followed, line = recorded(runs, moments, course), own_number("PTI_PLACE", 0)
    bar = tqdm(
        followed,
        label,
        max(shared.ends),
        unit="step",
        mininterval=2,
        position=line,
        initial=start,
    )
    for moment in bar:
        for view in views:
            if moment.step in view.steps:
                view.log(runs, moment.step)
    for view in views:
        if view.steps and moment.step not in view.steps:  # every experiment was stopped before
            view.log(runs, moment.step)
    for k, run in enumerate(runs):
        run.set_tags({"pti.outcome": "diverged" if k in course.frozen else "finished"})
        if k not in course.frozen and course.last[k] < shared.ends[k]:
            run.set_tags({"pti.stopped_step": course.last[k]})
    return course.frozen


def _log(runs: Sequence[Run], moments: Sequence[Moment], seconds: float, course: Course) -> None:
    metrics, derived = _table([m.metrics for m in moments]), _table([m.derived for m in moments])
    going = torch.stack([m.going for m in moments]).T.tolist()
    alive = moments[-1].alive.tolist()
    for k, run in enumerate(runs):
        lived = sum(going[k])  # once frozen or stopped, always so
        for i, moment in enumerate(moments[:lived]):
            run.log_metrics({name: rows[i][k] for name, rows in metrics.items()}, moment.step)
            if moment.step % SPARSE == 0 or i == lived - 1:
                run.log_metrics({name: rows[i][k] for name, rows in derived.items()}, moment.step)
        if not alive[k] and k not in course.frozen:
            course.frozen[k] = moments[lived].step
            run.set_tags({"pti.diverged_step": course.frozen[k]})
        if lived:
            course.last[k] = moments[lived - 1].step
            run.log_metrics({"train/pack_seconds_per_step": seconds}, moments[-1].step)
        run.flush()


def _table(values: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, list[list[float]]]:
    """Fetch numbers from the device at once: by name, then step, then experiment."""
    names = list(values[0])
    rows = torch.stack([torch.stack([v[name].double() for v in values]) for name in names])
    return dict(zip(names, rows.tolist(), strict=True))
