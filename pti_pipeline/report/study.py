"""What the report shows: a study's stages and their runs, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Shape (H, W, 3)."""

GAINS = ("twins/appearance", "twins/position", "twins/pose", "twins/scene")
"""Metrics whose histories the panel of gains draws."""

REGULARIZED = "regularized"
"""Key of the tuning's second sweep."""


@dataclass(frozen=True)
class Drawn:
    """A sample grid of a run: one row of pictures for each of the study's prompts.

    Attributes
    ----------
    step : int
        After which it was drawn.
    distance : float
        ``distance/delta_norm`` there; NaN if unknown.
    grid : ndarray, shape (H, W, 3), uint8
    """

    step: int
    distance: float
    grid: Picture


@dataclass(frozen=True)
class Trained:
    """One training of a sweep.

    Attributes
    ----------
    id, name, link : str
        ``link`` is the run's page in the MLflow UI, empty where the store has none.
    state : str
        ``finished``, ``diverged``, ``failed``, ``killed`` or ``running``.
    trouble : str
        What went wrong, if something did.
    lr, seed, steps : str
        As logged.
    metrics : mapping of str to float
        The latest values.
    samples : sequence of Drawn
        By step.
    gains : mapping of str to sequence of (float, float)
        For each of :data:`GAINS` that was logged, pairs of distance and gain.
    """

    id: str
    name: str
    link: str
    state: str
    trouble: str
    lr: str
    seed: str
    steps: str
    metrics: Mapping[str, float]
    samples: Sequence[Drawn] = ()
    gains: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def value(self, key: str) -> float:
        """Latest value of a metric; NaN if there is none."""
        return self.metrics.get(key, math.nan)

    @property
    def distance(self) -> float:
        """``distance/delta_norm`` at the end; NaN if unknown."""
        return self.value("distance/delta_norm")

    @property
    def measured(self) -> bool:
        """Whether ``evaluate`` measured it."""
        return "reconstruction/bank_gain" in self.metrics


@dataclass(frozen=True)
class Stage:
    """A sweep and the choice among its runs.

    Attributes
    ----------
    key : str
        ``invert``, ``finetune`` or :data:`REGULARIZED`.
    runs : sequence of Trained
        The nearest first; those of unknown distance last.
    choice : str
        Id of the chosen run; empty if none was.
    reason : str
        Why, as ``select`` wrote it.
    value, low, high : float
        Distance of the knee or limit, which lies between runs, and its interval; NaN if none was
        given.
    bracketed : bool
        Whether the measured range holds the knee or limit; else the choice is an end of it.
    """

    key: str
    runs: Sequence[Trained]
    choice: str = ""
    reason: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    bracketed: bool = True

    @property
    def chosen(self) -> Trained | None:
        """The chosen run."""
        return next((run for run in self.runs if run.id == self.choice), None)

    def label(self, run: Trained) -> str:
        """Tell a run from the stage's others by learning rate, and by seed if there are several."""
        several = len({other.seed for other in self.runs}) > 1
        return f"lr {run.lr}, seed {run.seed}" if several else f"lr {run.lr}"

    @property
    def reconstruction(self) -> str:
        """The metric shown as reconstruction: appearance where a reader could read it."""
        shown = "reconstruction/appearance"
        measured = [run for run in self.runs if run.measured]
        every = measured and all(shown in run.metrics for run in measured)
        return shown if every else "reconstruction/bank_gain"

    @property
    def against(self) -> str:
        """Whom the leak is measured against, as in the metrics' names."""
        return "class" if self.key == "invert" else "pivot"

    @property
    def reference(self) -> str:
        """The same in words."""
        return "class word" if self.key == "invert" else "pivot"

    @property
    def target(self) -> str:
        """What the stage's choice is called: ``chosen`` where there is no knee or limit."""
        if not self.bracketed:
            return "chosen"
        return "knee" if self.key == "invert" else "limit"


@dataclass(frozen=True)
class Study:
    """A whole study.

    Attributes
    ----------
    id, name, link, status : str
        Of its run.
    token, initializer : str
    began : str
        Date and time, with the zone.
    minutes : float
        From start to end; NaN if it has not ended.
    model, version, alias : str
        What was registered; empty if nothing was.
    prompts : sequence of str
        Rows of every sample grid; ``{}`` stands for the token.
    settings : mapping of str to str
        As given to ``main``.
    facts : mapping of str to str
        What else a reproduction needs: fingerprints, versions, commit.
    invert, finetune : Stage
    regularized : Stage, optional
        The tuning's second sweep, with a regularizer.
    registered : str
        Id of the run whose LoRA was registered; empty if nothing was.
    preference : str
        Why it was that one of the two tunings.
    """

    id: str
    name: str
    link: str
    status: str
    token: str
    initializer: str
    began: str
    minutes: float
    model: str
    version: str
    alias: str
    prompts: Sequence[str]
    settings: Mapping[str, str]
    facts: Mapping[str, str]
    invert: Stage
    finetune: Stage
    regularized: Stage | None = None
    registered: str = ""
    preference: str = ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in order."""
        both = self.invert, self.finetune
        return (*both, self.regularized) if self.regularized else both

    @property
    def final(self) -> Stage:
        """The tuning whose LoRA was registered."""
        other = self.regularized
        return other if other and self.registered == other.choice else self.finetune
