"""How much is done for a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pti_pipeline.settings import STEPS, SampleSettings


@dataclass(frozen=True)
class Effort:
    """How much is done for a cell.

    Attributes
    ----------
    steps : int
        Of every training.
    probes : dict of str to int
        Steps at which twins are read and functions compared, by kind of cell.
    samples : dict of str to int
        Plain samples of each point, by kind of cell.
    edit_seeds : int
        Samples of each edit prompt.
    rates : int
        Learning rates of a sweep.
    how : SampleSettings
    """

    steps: int
    probes: Mapping[str, int]
    samples: Mapping[str, int]
    edit_seeds: int
    rates: int
    how: SampleSettings


FULL = Effort(
    STEPS,
    {"inversion": 12, "tuning": 24, "sweep": 12},
    {"inversion": 64, "tuning": 128, "sweep": 128, "dreambooth": 128, "joint": 128},
    edit_seeds=4,
    rates=6,
    how=SampleSettings(),
)
QUICK = Effort(
    8,
    {"inversion": 2, "tuning": 3, "sweep": 2},
    {"inversion": 8, "tuning": 8, "sweep": 8, "dreambooth": 8, "joint": 8},
    edit_seeds=1,
    rates=2,
    how=SampleSettings(steps=3),
)
"""Shows that it runs; decides nothing."""
