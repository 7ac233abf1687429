"""The factors of rendered pictures, kept in a file beside them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pti_pipeline.world.factors import COLORS, EMBLEMS, EYES, HATS, SCENES, SPECIES, Factors

FILE = "factors.json"
COUNTS = {
    "species": len(SPECIES),
    "color": len(COLORS),
    "belly": len(COLORS),
    "hat": len(HATS),
    "hat_color": len(COLORS),
    "emblem": len(EMBLEMS),
    "eyes": len(EYES),
    "facing": 2,
    "arms": 2,
    "scene": len(SCENES),
    "scene_seed": 2**31,
}
"""Values of the factors that are numbers of something; the others are from 0 to 1."""


def write_factors(factors: Factors, names: Sequence[str], folder: Path) -> None:
    """Write the factors of a folder's pictures, whose file names are ``names``."""
    columns = {f.name: getattr(factors, f.name).tolist() for f in fields(Factors)}
    lines = [json.dumps(k) + ": " + json.dumps(v) for k, v in {"file": names, **columns}.items()]
    (folder / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_factors(folder: Path, names: Sequence[str]) -> Factors | None:
    """Factors of the pictures ``names``, in this order; None unless all of them are recorded.

    A file that can't be read is told as a warning.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        columns = json.loads(path.read_text(encoding="utf-8"))
        rows = {name: row for row, name in enumerate(columns["file"])}
        factors = Factors(**{f.name: np.array(columns[f.name]) for f in fields(Factors)})
        for field in fields(Factors):
            _check(field.name, getattr(factors, field.name), len(rows))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        warnings.warn(f"'{path}' can't be read ({error!r}): passed over", stacklevel=2)
        return None
    if not set(names) <= set(rows):
        return None
    return factors[[rows[name] for name in names]]


def _check(name: str, column: NDArray[Any], count: int) -> None:
    """Raise ``ValueError`` unless a column holds values of its factor, one a picture."""
    shape = (count, 3) if name.endswith("rgb") else (count,)
    most = COUNTS.get(name)
    right = column.shape == shape and column.dtype.kind in ("if" if most is None else "i")
    if not right or not ((column >= 0) & (column <= (1 if most is None else most - 1))).all():
        raise ValueError(f"no values of {name}")
