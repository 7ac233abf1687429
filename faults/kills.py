"""Trainings killed at any moment, gone on with, and compared with ones that were left alone.

Half of the kills come right before a write to the file system of which Python knows, the others
at any time: these alone can hit what SQLite writes, and safetensors, which Python is not told of.
What goes down is the process and all its workers, by SIGKILL. In every second case what goes on is
killed too, and a third attempt must do. It must leave what one attempt would have left.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from faults.jobs import Job, pti, usual_jobs
from faults.killing import NEVER, Strike, run
from faults.places import forked
from faults.trace import trace
from pti_pipeline.steps.attempts import differences
from pti_pipeline.tracking.store import connect

POINTS = 25, 200
"""Cases of the short and of the long form in which a living command was killed."""
TOLD = 2000
"""Letters of a failed case's output that are kept."""
TRIES = 3
"""Cases tried for each of these at most: a kill can come after the command's end."""


@dataclass(frozen=True)
class Whole:
    """What a job does that nobody disturbs: its trace, its writes and its seconds."""

    trace: dict[str, Any]
    writes: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes
    ----------
    job : str
    killed : int
        How many attempts were killed before their ends.
    differences : list of str
        From the command that was left alone.
    corrupt : bool
        Whether an attempt that was not killed failed.
    duplicates : int
        Points, pictures, runs and models that are there more than once.
    left : list of str
        Files that nobody needs any more.
    told : str
        What the attempts said last, if one failed.
    """

    job: str
    killed: int
    differences: list[str]
    corrupt: bool
    duplicates: int
    left: list[str]
    told: str = ""


def measure(long: bool) -> dict[str, float]:
    """Kill the usual jobs in turn, as often as :data:`POINTS` says; count what was lost."""
    with TemporaryDirectory() as folder:
        jobs, start = usual_jobs(Path(folder))
        found = list(kills(jobs, start, Path(folder), POINTS[long]))
    for outcome in found:
        if outcome.differences or outcome.corrupt or outcome.duplicates or outcome.left:
            print(outcome, file=sys.stderr)
    hit = [outcome for outcome in found if outcome.killed]
    return {
        "kill_points": len(hit),
        "killed_twice": sum(o.killed > 1 for o in hit),
        "bit_identical": sum(not o.differences for o in hit) / len(hit),
        "corrupt": sum(o.corrupt for o in found),
        "duplicate_rows": sum(o.duplicates for o in found),
        "stale_files": sum(len(o.left) for o in found),
    }


def kills(
    jobs: Sequence[Job], start: Path, folder: Path, count: int, seed: int = 0
) -> Iterator[Outcome]:
    """Try jobs in turn until ``count`` cases had a kill that hit, each in a fresh folder.

    Parameters
    ----------
    jobs : sequence of Job
    start : Path
        What each begins with; the store is in it.
    folder : Path
        Where the cases have their folders.
    count : int
        There are at most :data:`TRIES` times as many cases.
    seed : int
        Of when to kill.
    """
    order = [job for job in jobs for _ in range(job.share)]
    draw, whole = random.Random(seed), {job.name: alone(job, start, folder) for job in jobs}
    hit = number = 0
    while hit < count and number < TRIES * count:
        job = order[number % len(order)]
        strikes = [_drawn(draw, whole[job.name], 1.0)]
        if number % 2:  # less is left to be done
            strikes.append(_drawn(draw, whole[job.name], 0.5))
        outcome = killed(job, whole[job.name], start, folder / f"{number}", strikes)
        hit, number = hit + bool(outcome.killed), number + 1
        yield outcome


def _drawn(draw: random.Random, whole: Whole, share: float) -> Strike:
    """Draw a moment of the first ``share`` of a job."""
    if draw.random() < 0.5:
        return Strike(write=draw.randint(1, max(1, int(whole.writes * share))))
    return Strike(seconds=draw.random() * whole.seconds * share)


def alone(job: Job, start: Path, folder: Path) -> Whole:
    """Run a job that nobody disturbs."""
    place = folder / f"{job.name} alone"
    shutil.copytree(start, place)
    clock = time.monotonic()
    code, writes = run(job.command, place)
    if code:
        raise RuntimeError(f"{job.name} ends with {code}: {(place / 'log').read_text()}")
    seconds = time.monotonic() - clock
    return Whole(forked(place, _trace), writes, seconds)


def killed(job: Job, whole: Whole, start: Path, place: Path, strikes: Sequence[Strike]) -> Outcome:
    """Run a job once for each strike and once without; hold what it leaves against the whole."""
    shutil.copytree(start, place)
    codes: list[int] = []
    for strike in (*strikes, NEVER):
        done = codes and forked(place, partial(_finished, len(whole.trace["runs"])))
        codes.append(run(partial(pti, "sync") if done else job.command, place, strike)[0])
    found = forked(place, _trace) if codes[-1] == 0 else {}
    corrupt = any(code not in (0, -signal.SIGKILL) for code in codes) or not found
    told = (place / "log").read_text(errors="replace")[-TOLD:] if corrupt else ""
    shutil.rmtree(place)
    return Outcome(
        job.name,
        codes.count(-signal.SIGKILL),
        differences(whole.trace["runs"], found["runs"]) if found else ["all"],
        corrupt,
        found.get("duplicates", 0),
        found.get("left", []),
        told,
    )


def _finished(count: int) -> bool:
    """Whether all was done before the kill: then the user has no reason to run it again."""
    found = connect().search_runs([e.experiment_id for e in connect().search_experiments()])
    return [run.info.status for run in found] == ["FINISHED"] * count


def _trace() -> dict[str, Any]:
    return trace([e.experiment_id for e in connect().search_experiments()])
