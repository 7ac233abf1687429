"""The cells at hand, by kind, subject and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pti_pipeline.studies.claims.cells import Cell, Result, read_cell
from pti_pipeline.studies.claims.comparison_grid import comparison_grid
from pti_pipeline.studies.claims.curves import ONSET, onset_of
from pti_pipeline.studies.claims.grid import grid

Groups = dict[str, list[float]]
"""By subject, one value for each seed."""


@dataclass(frozen=True)
class Evidence:
    """What was computed so far, in ``folder``."""

    folder: Path

    @cached_property
    def cells(self) -> dict[Cell, Result]:
        """Every cell that was computed, of either grid."""
        cells = [*grid(), *comparison_grid(self.folder)]
        found = {cell: read_cell(self.folder, cell) for cell in cells}
        return {cell: result for cell, result in found.items() if result is not None}

    @property
    def origin(self) -> dict[str, str]:
        """Commits and machines that computed the cells."""
        made = [result["made"] for result in self.cells.values()]
        return {
            name: "; ".join(sorted({origin[name] for origin in made}))
            for name in ("commit", "machine")
        }

    def of(self, **facts: object) -> dict[Cell, Result]:
        """Cells with these fields."""
        return {
            cell: result
            for cell, result in self.cells.items()
            if all(getattr(cell, name) == value for name, value in facts.items())
        }

    def usual(self, kind: str, vectors: int = 1) -> dict[Cell, Result]:
        """Cells of the usual folder, around a pivot, with samples."""
        whole = {"constant": "", "vectors": vectors, "inverted": True, "sampled": True, "arm": ""}
        return self.of(kind=kind, pictures=Cell.pictures, **whole)


def by_subject(cells: dict[Cell, Result], value: Callable[[Cell, Result], float]) -> Groups:
    """One number of each cell, grouped by subject; cells that have none are left out."""
    groups: Groups = {}
    for cell, result in cells.items():
        number = value(cell, result)
        if np.isfinite(number):
            groups.setdefault(cell.subject, []).append(number)
    return groups


def onsets(cells: dict[Cell, Result], factor: str) -> Groups:
    """Logarithm of the distance at which each followed run starts to learn a factor."""
    return by_subject(cells, lambda _, r: float(np.log10(onset_of(r, factor, ONSET))))
