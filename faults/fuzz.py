"""Random inputs to everything that reads from outside: an error of ours, or what it promises.

``python -m faults.fuzz [long] [folder of progress]`` prints the counts; each case depends on
nothing but its chunk and number, so that one alone can be tried again:
``python -c "from faults.fuzz import attempt; print(attempt(3, 512))"``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import torch

from faults import parsers, readers
from pti_pipeline.errors import PtiError

READERS: tuple[Callable[[Random, Path], None], ...] = (
    parsers.parsed_numbers,
    parsers.parsed_seeds,
    parsers.parsed_words,
    parsers.parsed_vary,
    parsers.settings,
    parsers.options,
    parsers.requests,
    parsers.told,
    readers.pictures,
    readers.captions,
    readers.pivots,
    readers.loras,
    readers.attached_loras,
    readers.foreign_loras,
    readers.bundles,
    readers.journals,
    readers.checkpoints,
    readers.kept,
)
"""Each reads something random, in a folder of its own, and raises what its reader raises."""
CHUNK = 10_000
"""Cases that are counted, and kept, together; the short form is the first chunk."""
LONG = 100
"""Chunks of the long form."""
PATIENCE = 2.0
"""Seconds of CPU time that a case has."""
PROGRESS = "PTI_FAULTS"
"""Environment variable: folder in which the long form keeps what it has counted."""
NAMES = ("fuzz_cases", "unclassified", "hangs")


class HangError(BaseException):
    """A case took too long; no handler of errors is to catch this."""


def measure(long: bool = False, folder: Path | None = None) -> dict[str, float]:
    """Count cases, exceptions that nobody thought of, and hangs.

    Parameters
    ----------
    long : bool
        A million cases, which go on where they were stopped; else ten thousand.
    folder : Path, optional
        Of the progress; :data:`PROGRESS`, or else ``faults-progress`` here.
    """
    if not long:
        return _named(run_chunk(0, CHUNK))
    place = folder or Path(os.environ.get(PROGRESS, "faults-progress"))
    done = _progress(place)
    for chunk in range(LONG):
        if str(chunk) not in done:
            done[str(chunk)] = run_chunk(chunk, CHUNK)
            _keep(place, done)
    return _named([sum(counts) for counts in zip(*done.values(), strict=True)])


def run_chunk(chunk: int, cases: int) -> list[int]:
    """Try a chunk's cases; return how many there were, and how many failed or hung."""
    failed = hung = 0
    for number in range(cases):
        if trouble := attempt(chunk, number):
            print(f"chunk {chunk}, case {number}: {trouble}", file=sys.stderr)
            hung += trouble.startswith("hang")
            failed += not trouble.startswith("hang")
    return [cases, failed, hung]


def attempt(chunk: int, number: int) -> str:
    """Try one case; return what went wrong, if anything did."""
    rng = Random(f"{chunk}/{number}")
    read = READERS[number % len(READERS)]
    before = dict(os.environ)
    folder = Path(mkdtemp(dir=_memory()))
    signal.signal(signal.SIGVTALRM, _hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    start = time.process_time()
    try:
        read(rng, folder)
    except PtiError:
        pass
    except HangError:
        return f"hang in {read.__name__}"
    except BaseException as error:
        return f"{read.__name__}: {type(error).__name__}: {error}"[:500]
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)
    return f"hang in {read.__name__}" if time.process_time() - start > PATIENCE else ""


def _hang(*_: object) -> None:
    raise HangError


def _memory() -> str | None:
    """Folder in memory, where the system has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108, in a folder of its own


def _named(counts: list[int]) -> dict[str, float]:
    return dict(zip(NAMES, counts, strict=True))


def _progress(folder: Path) -> dict[str, list[int]]:
    try:
        found: dict[str, list[int]] = json.loads((folder / "fuzz.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _keep(folder: Path, done: dict[str, list[int]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / "fuzz.json.new"
    fresh.write_text(json.dumps(done), "utf-8")
    os.replace(fresh, folder / "fuzz.json")


if __name__ == "__main__":
    torch.set_num_threads(1)
    told = [Path(word) for word in sys.argv[1:] if word != "long"]
    print(measure("long" in sys.argv, *told[:1]))
