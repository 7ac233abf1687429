"""Cells: the smallest parts of the claims' evidence, each a training and a file of its results."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pti_pipeline.world.subjects import CHARACTERS, Character

Result = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One way of training, on one subject with one seed.

    Attributes
    ----------
    kind : str
        ``inversion``, ``tuning`` (one run, followed along its distance), ``sweep`` (tunings at
        several learning rates), or a baseline: ``dreambooth`` or ``joint``.
    subject : str
        Name of a held-out character.
    seed : int
        Of the training and of the samples.
    pictures : int
        Size of the training folder.
    inverted : bool
        Whether a tuning starts from a pivot; otherwise it starts from the class word.
    constant : str
        What the training folder holds constant: ``position``, ``scene`` or nothing.
    vectors : int
        Of the placeholder token.
    sampled : bool
        Whether samples are drawn along the way; twins alone are much cheaper.
    arm : str
        Of the regularizers' comparison (:data:`pti_pipeline.studies.claims.arms.ARMS`), or none.
    weight : float
        Of the arm's regularizer.
    rates : str
        Which learning rates a sweep takes, of
        :data:`pti_pipeline.studies.claims.tunings.SWEEP_LRS`.
    """

    kind: str
    subject: str
    seed: int
    pictures: int = 4
    inverted: bool = True
    constant: str = ""
    vectors: int = 1
    sampled: bool = True
    arm: str = ""
    weight: float = 1.0
    rates: str = "usual"

    @property
    def name(self) -> str:
        """Name of the cell's file."""
        parts = [self.kind, self.subject, f"{self.pictures}pictures", f"seed{self.seed}"]
        parts += ["" if self.inverted else "raw", self.constant and f"constant-{self.constant}"]
        parts += [f"{self.vectors}vectors" if self.vectors > 1 else ""]
        parts += ["" if self.sampled else "twins"]
        parts += [f"{self.arm}-{self.weight:g}" if self.arm else ""]
        parts += ["" if self.rates == "usual" else f"{self.rates}-rates"]
        return "-".join(filter(None, parts))

    @property
    def character(self) -> Character:
        """The subject itself."""
        return next(who for who in CHARACTERS if who.name == self.subject)


def read_cell(folder: Path, cell: Cell) -> Result | None:
    """Results of a cell, or None if it was not computed yet."""
    path = folder / f"{cell.name}.json"
    result: Result | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return result


def write_cell(folder: Path, cell: Cell, result: Result) -> None:
    """Write a cell's results, whole or not at all; numbers keep five digits."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cell.name}.json"
    text = json.dumps({"cell": asdict(cell), **_rounded(result)}, separators=(",", ":"))
    part = path.with_suffix(".part")
    part.write_text(text.replace('},{"', '},\n{"') + "\n", "utf-8")
    os.replace(part, path)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value
