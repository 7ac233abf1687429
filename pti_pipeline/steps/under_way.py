"""A training under way: its runs are opened, told what it does, and ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Generic

from pti_pipeline.errors import DivergedError
from pti_pipeline.inversion import Moment
from pti_pipeline.prefixes import Settings, Shared, spread
from pti_pipeline.preview import PREVIEW
from pti_pipeline.state import State
from pti_pipeline.steps.attempts import Attempt
from pti_pipeline.steps.prepared import Finetuning, Inversion, seen
from pti_pipeline.steps.resuming import begin, forget, keeping, restore
from pti_pipeline.tracking.dataset import log_dataset, log_pictures, log_prompts
from pti_pipeline.tracking.members import (
    Course,
    View,
    ending_view,
    follow,
    open_runs,
    stopped,
    tell_micro_batches,
)
from pti_pipeline.tracking.run import Run
from pti_pipeline.tracking.system import watched


@dataclass(frozen=True)
class Words:
    """What a kind of training says of a run, beside what every one says.

    Attributes
    ----------
    name : str
    params, tags : mapping
    """

    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class UnderWay(Generic[Settings]):
    """Runs that are open, and where the training stands that they tell of.

    Attributes
    ----------
    found : Attempt
    shared : Shared
    runs : list of Run, length K
    state : State
        Of the trainings; changed by each update.
    course : Course
        Of the experiments; kept up to date.
    """

    found: Attempt
    shared: Shared[Settings]
    runs: list[Run]
    state: State
    course: Course


@contextmanager
def under_way(
    ready: Inversion | Finetuning,
    found: Attempt,
    shared: Shared[Settings],
    words: Sequence[Words],
    what: str,
) -> Iterator[UnderWay[Settings]]:
    """Open the runs of an attempt, each where an earlier one left it; end them whatever happens.

    Parameters
    ----------
    ready : Inversion or Finetuning
    found : Attempt
    shared : Shared
    words : sequence of Words, length K
    what : str
        What is done, as a noun: for the message of a divergence.

    Raises
    ------
    DivergedError
        At the end, if a single experiment diverged; in a sweep, the others went on.
    """
    alone, told = not found.within.sweep, _told(ready, found, words)
    with (
        open_runs(*told, alone, found.earlier) as runs,
        watched(runs[0]) if alone else nullcontext(),
    ):
        begin(found, runs)
        log_dataset(runs, ready.subject, ready.images)
        if alone:
            log_pictures(runs[0], seen(ready, shared.trained[0]))
        if (prompts := found.facts[0]["preview"]) != PREVIEW:
            for run in runs:
                log_prompts(run, prompts)
        state, course = restore(found, len(shared.trained), ready.base.device)
        yield UnderWay(found, shared, runs, state, course)
        if course.frozen and alone:
            forget(runs)
            raise DivergedError(
                "E901",
                f"the {what} diverged at step {course.frozen[0]}",
                "use a smaller learning rate",
            )
    forget(runs)


def train(
    going: UnderWay[Settings],
    moments: Iterable[Moment],
    label: str,
    views: Sequence[View],
    keep: Callable[[int, int], None],
) -> None:
    """Train to the end, telling the runs, and keep what each experiment ends with.

    Parameters
    ----------
    going : UnderWay
    moments : iterable of Moment
        The trainings; consuming it trains.
    label : str
        Of the progress bar.
    views : sequence of View
        What is looked at on the way, in this order.
    keep : callable
        ``keep(k, owner)`` logs the weights of experiment k, which are now those of training
        ``owner``; never called of one that diverged.
    """
    found, shared, runs = going.found, going.shared, going.runs
    state, course = going.state, going.course
    last = ending_view(shared, state, keep), keeping(found, runs, shared, state, course)
    followed = spread(moments, shared, course.frozen)
    follow(runs, followed, label, shared, [*views, *last], course, found.step)
    tell_micro_batches(runs, state)
    for k, owner in stopped(shared, state, course):
        keep(k, owner)


def _told(
    ready: Inversion | Finetuning, found: Attempt, words: Sequence[Words]
) -> tuple[list[str], list[dict[str, object]], list[dict[str, str]]]:
    """Names, parameters and tags of the runs."""
    place = {**asdict(ready.where), "images": ready.images}
    common = {
        **found.within.tags,
        "pti.data_fingerprint": ready.subject.fingerprint,
        "pti.images": str(ready.images.resolve()),
    }
    names = [each.name for each in words]
    params = [{**place, **each.params} for each in words]
    tags = [{**common, **w.tags, **own} for w, own in zip(words, found.tags, strict=True)]
    return names, params, tags
