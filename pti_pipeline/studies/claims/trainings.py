"""Computes a cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pti_pipeline.studies.claims.baselines import dreambooth_cell, joint_cell
from pti_pipeline.studies.claims.bench import prepare_bench
from pti_pipeline.studies.claims.cells import Cell, Result
from pti_pipeline.studies.claims.effort import FULL, Effort
from pti_pipeline.studies.claims.inversions import invert_cell
from pti_pipeline.studies.claims.tunings import tune_cell

ALONE = {"inversion": invert_cell, "dreambooth": dreambooth_cell, "joint": joint_cell}
"""Cells that start from no pivot."""


def compute(cell: Cell, pivot: Sequence[Sequence[float]] | None, effort: Effort = FULL) -> Result:
    """Compute a cell.

    Parameters
    ----------
    cell : Cell
    pivot : sequence of vectors, optional
        Of a tuning around a pivot: what its inversion's cell chose.
    effort : Effort
    """
    torch.set_num_threads(1)
    bench = prepare_bench(cell, effort)
    if cell.kind in ALONE:
        return ALONE[cell.kind](bench)
    vectors = torch.tensor(pivot) if pivot is not None else None
    if vectors is None:
        vectors = bench.base.initializer_row(cell.character.species).expand(cell.vectors, -1)
    return tune_cell(bench, vectors.clone())
