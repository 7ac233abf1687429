"""The factors of rendered pictures, kept in a file beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from pti_pipeline.world.factors import Factors

FILE = "factors.json"


def write_factors(factors: Factors, names: Sequence[str], folder: Path) -> None:
    """Write the factors of a folder's pictures, whose file names are ``names``."""
    columns = {f.name: getattr(factors, f.name).tolist() for f in fields(Factors)}
    lines = [json.dumps(k) + ": " + json.dumps(v) for k, v in {"file": names, **columns}.items()]
    (folder / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_factors(folder: Path, names: Sequence[str]) -> Factors | None:
    """Factors of the pictures ``names``, in this order; None unless all of them are recorded."""
    path = folder / FILE
    if not path.is_file():
        return None
    columns = json.loads(path.read_text(encoding="utf-8"))
    rows = {name: row for row, name in enumerate(columns["file"])}
    if not set(names) <= set(rows):
        return None
    factors = Factors(**{f.name: np.array(columns[f.name]) for f in fields(Factors)})
    return factors[[rows[name] for name in names]]
