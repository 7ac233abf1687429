"""Arms of the regularizers' comparison: what each one holds, at equal forwards and backwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pti_pipeline.studies.claims.cells import Cell

ROWS = 8
"""Rows of every step: half of them beside the pictures' own, or all of pictures."""
WEIGHTS = (0.3, 1.0, 3.0)
FAR = 8.0
"""Kappa of the control: a ball so far from the pivot that holding it should help little."""


@dataclass(frozen=True)
class Arm:
    """A way of tuning.

    Attributes
    ----------
    options : mapping
        Settings of the tuning.
    weights : tuple of float
        Those tried in the screen, of ``weight``.
    weight : str
        Setting that a weight is.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = (1.0,)
    weight: str = "reg_weight"


def _beside(name: str, **options: Any) -> Arm:
    return Arm({"regularizer": name, "batch_size": ROWS // 2, **options}, WEIGHTS)


def _alone(name: str, **options: Any) -> Arm:
    return Arm({"regularizer": name, "batch_size": ROWS}, **options)


ARMS = {
    "none": _alone("none"),
    "class-preservation": _beside("class-preservation", reg_latents="training"),
    "locality-near": _beside("locality"),
    "locality-far": _beside("locality", kappa=FAR),
    "prior-preservation": _beside("prior-preservation"),
    "timestep-rank": _alone("timestep-rank"),
    "weight-ball": _alone("weight-ball", weights=(4.0, 8.0, 16.0), weight="until_distance"),
}
"""The first four are in the finals, and the best of the others."""
FINALISTS = tuple(ARMS)[:4]
CONTROLS = {"half-batch": Arm({"regularizer": "none", "batch_size": ROWS // 2})}
"""In the finals too: what arms with held rows see of the pictures, and nothing beside. It costs
half as much; what an arm does beyond it, its held rows do."""


def arm_settings(cell: Cell) -> dict[str, Any]:
    """Settings of a cell's tunings beside learning rate, steps and seed; none of an usual one."""
    if not cell.arm:
        return {}
    arm = {**ARMS, **CONTROLS}[cell.arm]
    return {**arm.options, arm.weight: cell.weight}
