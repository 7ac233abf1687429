"""What a training descends, as a user may set it: weights of its loss, noise, and what is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from pti_pipeline.errors import UsageError
from pti_pipeline.ranges import SWITCH, check_between, check_within, check_word

WEIGHTINGS = ("none", "min-snr", "debiased")
"""Weights of the loss by timestep, see :mod:`pti_pipeline.weighting`."""
RANGES = {
    "min_snr_gamma": (0.01, 1000.0),
    "offset_noise": (0.0, 1.0),
    "timestep_bias": (-3.0, 3.0),
    "background": (0.0, 1.0),
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
    offset_noise : float
        Standard deviation of noise that is the same all over a channel, added to the noise.
    timestep_range : str
        ``low,high``: part of the noise schedule that is trained, in shares of it.
    timestep_bias : float
        Above 0 noisier timesteps are drawn more often, below 0 cleaner ones; see
        :func:`pti_pipeline.batches.placed`.
    background : float
        Weight of the loss outside the subject's mask, beside 1 within.
    flip : str
        ``yes``: half of the draws see the picture mirrored, left and right swapped in its prompt.
    crops : int
        Views of each picture: its largest centered part, and others beside it.
    buckets : str
        ``yes``: pictures are not cut to squares, but to the nearest of some shapes of about a
        square's area; each step draws pictures of one of them.
    templates : str
        File of prompts for pictures without a caption; empty for those of
        :data:`pti_pipeline.data.TEMPLATES`.
    """

    weighting: str = "none"
    min_snr_gamma: float = 5.0
    offset_noise: float = 0.0
    timestep_range: str = "0,1"
    timestep_bias: float = 0.0
    background: float = 1.0
    flip: str = "no"
    crops: int = 1
    buckets: str = "no"
    templates: str = ""

    def __post_init__(self) -> None:
        check_word("weighting", self.weighting, WEIGHTINGS)
        for name in ("flip", "buckets"):
            check_word(name, getattr(self, name), SWITCH)
        for name, (least, most) in RANGES.items():
            check_between(name, getattr(self, name), least, most)
        check_within("crops", self.crops, 1)
        _ = self.timestep_span

    @property
    def timestep_span(self) -> tuple[float, float]:
        """Ends of :attr:`timestep_range`, from 0 (clean) to 1 (noise).

        Examples
        --------
        >>> Objective(timestep_range="0,0.8").timestep_span
        (0.0, 0.8)
        """
        try:
            low, high = map(float, self.timestep_range.split(","))
        except ValueError:
            low = high = math.nan
        if not 0 <= low < high <= 1:
            hint = "use two numbers from 0 to 1, the smaller first, such as 0,0.8"
            raise UsageError("E202", f"timestep_range is '{self.timestep_range}'", hint)
        return low, high


PLAIN = Objective()
"""The plain loss (Ho et al. 2020, eq. 14), everywhere alike."""


def objective_of(objective: Objective) -> dict[str, Any]:
    """The objective alone, by name, of settings that have more than that."""
    return {field.name: getattr(objective, field.name) for field in fields(Objective)}
