"""What a training descends, as a user may set it: weights of its loss, noise, and what is seen."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pti_pipeline.errors import UsageError

WEIGHTINGS = ("none", "min-snr", "debiased")
"""Weights of the loss by timestep, see :mod:`pti_pipeline.weighting`."""
RANGES = {
    "min_snr_gamma": (0.01, 1000.0),
}
"""Least and largest values of its numbers."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a training descends beside the plain loss; by default nothing but that.

    Attributes
    ----------
    weighting : str
        Of the loss by timestep, one of :data:`WEIGHTINGS`.
    min_snr_gamma : float
        Of min-SNR: the ratio of signal to noise, in power, above which weights stay what they are.
    """

    weighting: str = "none"
    min_snr_gamma: float = 5.0

    def __post_init__(self) -> None:
        for name, known in (("weighting", WEIGHTINGS),):
            if (word := getattr(self, name)) not in known:
                raise UsageError("E202", f"{name} is '{word}'", f"use one of {', '.join(known)}")
        for name, (least, most) in RANGES.items():
            if not least <= (value := getattr(self, name)) <= most:
                hint = f"use a number from {least:g} to {most:g}"
                raise UsageError("E202", f"{name} is {value}", hint)


PLAIN = Objective()
"""The plain loss (Ho et al. 2020, eq. 14), everywhere alike."""


def objective_of(objective: Objective) -> dict[str, Any]:
    """The objective alone, by name, of settings that have more than that."""
    return {field.name: getattr(objective, field.name) for field in fields(Objective)}
