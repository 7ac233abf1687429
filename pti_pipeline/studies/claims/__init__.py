"""The note's claims, answered on the embedded world: cells, verdicts, and a run that shows them."""

from __future__ import annotations

from pathlib import Path

from pti_pipeline.machine import cores
from pti_pipeline.progress import tqdm
from pti_pipeline.studies.claims.cells import Cell
from pti_pipeline.studies.claims.comparison_grid import comparison_grid, quick_comparison
from pti_pipeline.studies.claims.computing import compute_all, missing
from pti_pipeline.studies.claims.evidence import Evidence
from pti_pipeline.studies.claims.figures import FIGURES
from pti_pipeline.studies.claims.grid import grid, needs, quick_grid
from pti_pipeline.studies.claims.judging import as_details, as_json, as_table, judge
from pti_pipeline.tracking.runs import open_run


def claims(folder: Path, quick: bool, claim: str = "note") -> str:
    """Compute the cells that are missing, judge, write what follows from them; return the table.

    Parameters
    ----------
    folder : Path
        For ``cells/``, ``claims.json``, ``claims.md`` and the figures. Cells that are there are
        kept: remove a file to have it computed again.
    quick : bool
        Compute one small cell of each kind instead, in ``quick/`` of the folder; shows that it
        runs, decides nothing.
    claim : str
        ``note`` for those of the note's first parts, ``locality`` for the regularizers' comparison.
    """
    folder = folder / "quick" if quick else folder
    files = folder / "cells"
    cells = _cells(claim, files, quick)
    waiting = missing(cells, files)
    params = {"cells": len(cells), "computed_before": len(cells) - len(waiting), "quick": quick}
    with open_run("claims", {"claim": claim, **params}, {"pti.step": "claims"}) as run:
        while waiting:
            followed = compute_all(cells, files, cores(), quick)
            for cell in tqdm(followed, "cells", len(waiting), unit="cell"):
                run.set_tags({"pti.last_cell": cell.name})
            cells = _cells(claim, files, quick)  # a whole screen leads to finals
            waiting = missing(cells, files)
        table = rebuild(folder)
        run.log_text(table, "claims.md")
        for verdict in judge(Evidence(files)):
            e = verdict.estimate
            numbers = {"estimate": e.value, "low": e.low, "high": e.high}
            run.log_metrics({f"claims/{verdict.name}_{k}": v for k, v in numbers.items()})
            run.set_tags({f"pti.claim.{verdict.name}": verdict.verdict})
        run.log_artifact(folder / "claims.json")
        for name in FIGURES:
            if (folder / f"{name}.png").is_file():
                run.log_artifact(folder / f"{name}.png")
        run.set_tags({"mlflow.note.content": table})
    return table


def _cells(claim: str, files: Path, quick: bool) -> list[Cell]:
    if claim == "note":
        return quick_grid() if quick else grid()
    cells = quick_comparison() if quick else comparison_grid(files)
    pivots = [pivot for cell in cells if (pivot := needs(cell))]
    return list(dict.fromkeys([*pivots, *cells]))


def rebuild(folder: Path) -> str:
    """Write verdicts, tables and figures anew from the cells; return the table."""
    evidence = Evidence(folder / "cells")
    verdicts = list(judge(evidence))
    table = as_table(verdicts)
    (folder / "claims.json").write_text(as_json(verdicts, evidence), "utf-8")
    text = "\n".join([table, *(as_details(v) for v in verdicts if v.details)])
    (folder / "claims.md").write_text(text, "utf-8")
    for name, draw in FIGURES.items():
        figure = draw(evidence)
        if figure is not None:
            figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    return table
