"""Trainings killed at any moment, gone on with, and compared with ones that were left alone.

Half of the kills hit the moment before a write to the file system, whichever it is, found by
Python's audit events; the others come at any time. What goes down is the process and all its
workers, by SIGKILL. A command that is then given again must leave what it would have left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from mmap import mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from faults.places import enter, forked
from faults.tiny import build_base, build_pictures
from faults.trace import trace
from pti_pipeline.cli import main
from pti_pipeline.steps import resuming
from pti_pipeline.steps.attempts import differences
from pti_pipeline.steps.world_training import follow
from pti_pipeline.steps.world_training.loop import Schedule, train
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.tracking.store import connect

POINTS = 25, 200
"""Kills of the short and of the long form."""
WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "sqlite3.connect")
"""Audit events that change the file system, beside that of opening to write."""
PATIENCE = 120.0
"""Seconds that a command has; then it hangs."""


@dataclass(frozen=True)
class Job:
    """A command to be killed.

    Attributes
    ----------
    name : str
    command : callable
        Runs it in this process.
    share : int
        How many of a round's kills it gets.
    """

    name: str
    command: Callable[[], object]
    share: int


@dataclass(frozen=True)
class Outcome:
    """What became of one kill.

    Attributes
    ----------
    job : str
    killed : bool
        Whether it hit the command before its end.
    differences : list of str
        From the command that was left alone.
    corrupt : bool
        Whether the command would not go on.
    duplicates : int
        Points, pictures, runs and models that are there more than once.
    left : list of str
        Files that nobody needs any more.
    """

    job: str
    killed: bool
    differences: list[str]
    corrupt: bool
    duplicates: int
    left: list[str]


def measure(long: bool) -> dict[str, float]:
    """Kill the jobs in turn, as many times as :data:`POINTS` says; count what was lost."""
    with TemporaryDirectory() as folder:
        found = list(kills(Path(folder), POINTS[long]))
    return {
        "kill_points": len(found),
        "bit_identical": sum(not o.differences for o in found) / len(found),
        "corrupt": sum(o.corrupt for o in found),
        "duplicate_rows": sum(o.duplicates for o in found),
        "stale_files": sum(len(o.left) for o in found),
    }


def kills(folder: Path, count: int, seed: int = 0) -> Iterator[Outcome]:
    """Kill jobs ``count`` times, each in a fresh folder with a fresh store."""
    base, pictures = build_base(folder / "base", "v_prediction"), folder / "pictures"
    pictures.mkdir()
    build_pictures(pictures)
    start = folder / "start"
    start.mkdir()
    subject = [f"--images={pictures}", "--token=<c>", "--initializer=cat"]
    usual = [f"--base={base}", "--device=cpu", "--batch-size=2", "--sample-every=70", "--probes=5"]
    first = Job("", partial(pti, "invert", *subject, *usual, "--steps=10"), 1)
    run(first, start)
    pivot = forked(start, lambda: find_runs(step="invert")[0].id)
    jobs = [
        Job("invert", partial(pti, "invert", *subject, *usual, "--steps=160", "--seed=1"), 3),
        Job("finetune", partial(pti, "finetune", f"--pivot={pivot}", *usual, "--steps=160"), 3),
        Job("sweep", partial(pti, "sweep", *_axes(pivot), *usual, "--steps=160"), 3),
        Job("world", train_world, 1),
    ]
    order = [job for job in jobs for _ in range(job.share)]
    draw, whole = random.Random(seed), {job.name: alone(job, start, folder) for job in jobs}
    for number in range(count):
        job = order[number % len(order)]
        reference, writes, seconds = whole[job.name]
        yield killed(job, start, folder / f"{number}", reference, *_when(draw, writes, seconds))


def _axes(pivot: str) -> list[str]:
    """A sweep of two packs, with a curve on one training and a rate that diverges."""
    return [
        "--stage=finetune",
        f"--pivot={pivot}",
        "--lrs=0.003,10000",
        "--vary=steps:60,160",
        "--regularizer=class-preservation",
        "--reg-bank=4",
    ]


def _when(draw: random.Random, writes: int, seconds: float) -> tuple[int, float]:
    """Before which write, or else after how many seconds; the other is 0."""
    return (draw.randint(1, writes), 0.0) if draw.random() < 0.5 else (0, draw.random() * seconds)


def alone(job: Job, start: Path, folder: Path) -> tuple[dict[str, Any], int, float]:
    """Run a job that nobody disturbs; return its trace, its writes and its seconds."""
    place = folder / f"{job.name} alone"
    shutil.copytree(start, place)
    clock = time.monotonic()
    code, writes = run(job, place)
    if code:
        raise RuntimeError(f"{job.name} ends with {code}: {(place / 'log').read_text()}")
    seconds = time.monotonic() - clock
    return forked(place, _trace), writes, seconds


def killed(
    job: Job, start: Path, place: Path, reference: dict[str, Any], write: int, seconds: float
) -> Outcome:
    """Kill a job, run it again, and hold what it leaves against the reference."""
    shutil.copytree(start, place)
    code, _ = run(job, place, write, seconds)
    done = forked(place, partial(_finished, len(reference["runs"])))
    again, _ = run(Job("", partial(pti, "sync"), 1) if done else job, place)
    found = forked(place, _trace) if again == 0 else {}
    shutil.rmtree(place)
    return Outcome(
        job.name,
        code == -signal.SIGKILL,
        differences(reference["runs"], found["runs"]) if found else ["all"],
        again != 0,
        found.get("duplicates", 0),
        found.get("left", []),
    )


def run(job: Job, place: Path, write: int = 0, seconds: float = 0.0) -> tuple[int, int]:
    """Run a job in a process group of its own; return its exit code and how often it wrote.

    Parameters
    ----------
    job : Job
    place : Path
        Working folder; the store is in it.
    write : int
        Kill the group before this write.
    seconds : float
        Kill it after this time.
    """
    counter = mmap(-1, 8)
    child = os.fork()
    if not child:
        _enter(job, place, counter, write)
    deadline = time.monotonic() + (seconds or PATIENCE)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1]), int.from_bytes(counter[:8], "little")


def _enter(job: Job, place: Path, counter: mmap, write: int) -> None:
    """Be the process that may be killed; never returns."""
    os.setpgid(0, 0)
    enter(place)
    log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    resuming.PAUSE = 0.0  # checkpoints at every 50th step, however fast

    def hook(event: str, facts: tuple[Any, ...]) -> None:
        flags = facts[2] if event == "open" else 0
        if event in WRITES or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            done = int.from_bytes(counter[:8], "little") + 1
            counter[:8] = done.to_bytes(8, "little")
            if done == write:
                os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)
    code = 1
    try:
        job.command()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def pti(*words: str) -> None:
    """Be the command ``pti``."""
    main([*words], prog_name="pti")


def train_world() -> None:
    """Train as the embedded world is trained, something small."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int, rows: int) -> torch.Tensor:
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    training = train("small", model, loss, Schedule(40, 8, 1e-2), Path("world"), 5, 0.0)
    follow(training, {"parts": "small"})


def _finished(count: int) -> bool:
    """Whether all was done before the kill: then the user has no reason to run it again."""
    found = connect().search_runs([e.experiment_id for e in connect().search_experiments()])
    return [run.info.status for run in found] == ["FINISHED"] * count


def _trace() -> dict[str, Any]:
    return trace([e.experiment_id for e in connect().search_experiments()])
