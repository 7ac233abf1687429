"""Which cells answer the claims, in the order in which they are computed."""

from __future__ import annotations

from pti_pipeline.studies.claims.cells import Cell
from pti_pipeline.world.subjects import CHARACTERS

SUBJECTS = tuple(who.name for who in CHARACTERS[:5])
SEEDS = (0, 1, 2)
REPEATED, MORE_SEEDS = SUBJECTS[:2], (3, 4)
"""Subjects, and further seeds, from which the limit's repeatability is told."""
MORE_PICTURES = 8
"""Size of a second folder whose tunings are sampled too."""
PICTURES = (2, 16)
"""Sizes of further folders, followed by twins alone."""
CONSTANT = ("position", "scene")
SEVERAL_VECTORS = 4


def main_cells(subject: str, seed: int, pictures: int = Cell.pictures) -> list[Cell]:
    """One subject's inversions and the one run that is followed: claims 1 to 4."""
    return [Cell(kind, subject, seed, pictures) for kind in ("inversion", "tuning")]


def mechanism_cells(subject: str) -> list[Cell]:
    """Tunings on more and fewer pictures, with and without a pivot, by twins alone: claim 5."""
    sizes = (Cell.pictures, MORE_PICTURES, *PICTURES)
    cells = [Cell("tuning", subject, 0, n, inverted=False, sampled=False) for n in sizes]
    cells += main_cells(subject, 0, MORE_PICTURES)
    for n in PICTURES:
        cells += [Cell(k, subject, 0, n, sampled=False) for k in ("inversion", "tuning")]
    return cells


def control_cells(subject: str) -> list[Cell]:
    """Folders in which position or scene never changes: claim 5."""
    return [
        Cell(kind, subject, 0, constant=constant, sampled=False)
        for constant in CONSTANT
        for kind in ("inversion", "tuning")
    ]


def grid() -> list[Cell]:
    """Every cell; the first parts say something of all claims, the later ones narrow intervals."""
    first, *others = SEEDS
    cells = [cell for subject in SUBJECTS for cell in main_cells(subject, first)]
    cells += [cell for subject in SUBJECTS for cell in mechanism_cells(subject)]
    cells += [c for seed in others for subject in SUBJECTS for c in main_cells(subject, seed)]
    cells += [Cell("sweep", subject, first) for subject in SUBJECTS]
    cells += [cell for subject in SUBJECTS for cell in control_cells(subject)]
    cells += [c for subject in REPEATED for seed in MORE_SEEDS for c in main_cells(subject, seed)]
    cells += [Cell("inversion", subject, first, vectors=SEVERAL_VECTORS) for subject in SUBJECTS]
    return cells


def quick_grid() -> list[Cell]:
    """One subject's inversions and tuning."""
    return main_cells(SUBJECTS[0], SEEDS[0])


def needs(cell: Cell) -> Cell | None:
    """Cell whose result a tuning starts from: the inversion of the same pictures."""
    if cell.kind in ("inversion", "dreambooth", "joint") or not cell.inverted:
        return None
    sampled = cell.pictures in (Cell.pictures, MORE_PICTURES) and not cell.constant
    return Cell(
        "inversion", cell.subject, cell.seed, cell.pictures, True, cell.constant, 1, sampled
    )
