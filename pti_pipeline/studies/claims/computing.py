"""Computes the cells that are missing, side by side, each as soon as what it needs is there."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from pti_pipeline.machine import cores
from pti_pipeline.studies.claims.cells import Cell, read_cell, write_cell
from pti_pipeline.studies.claims.effort import FULL, QUICK
from pti_pipeline.studies.claims.grid import needs
from pti_pipeline.studies.claims.inversions import chosen_pivot
from pti_pipeline.studies.claims.trainings import compute
from pti_pipeline.workers import worker_pool


def missing(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """Cells without a file in ``folder``."""
    return [cell for cell in cells if read_cell(folder, cell) is None]


def compute_all(cells: Sequence[Cell], folder: Path, workers: int, quick: bool) -> Iterator[Cell]:
    """Compute cells in the order given; yield each when its file is written."""
    waiting, running = missing(cells, folder), dict[Future[None], Cell]()
    with worker_pool(workers) as pool:
        while waiting or running:
            ready = [c for c in waiting if not (n := needs(c)) or not missing([n], folder)]
            for cell in ready[: workers - len(running)]:
                waiting.remove(cell)
                running[pool.submit(_compute, cell, folder, quick)] = cell
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                yield running.pop(future)


def _compute(cell: Cell, folder: Path, quick: bool) -> None:
    start, inversion = time.process_time(), needs(cell)
    found = read_cell(folder, inversion) if inversion else None
    result = compute(cell, chosen_pivot(found) if found else None, QUICK if quick else FULL)
    spent = {"cpu_seconds": time.process_time() - start, "made": origin()}
    write_cell(folder, cell, result | spent)


def origin() -> dict[str, str]:
    """Tell the commit of the code, where it is a checkout, and the machine."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    commit = asked.stdout.strip() or "unknown"
    return {"commit": commit, "machine": f"{platform.machine()}, {cores()} cores"}
