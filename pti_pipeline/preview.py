"""What is shown of a training under way, as a user may ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pti_pipeline.captions import read_prompts
from pti_pipeline.errors import UsageError
from pti_pipeline.ranges import check_within
from pti_pipeline.values import parse_seeds

PREVIEW = ("a photo of {}", "{} on the left on the beach", "{} on the right in the snow")
"""Prompts of sample grids, a row each."""
SEEDS = (0, 1, 2, 3)
"""Their seeds, a column each."""
MOST = 16
"""Rows, and columns, of a sample grid."""


@dataclass(frozen=True)
class WatchSettings:
    """What is shown of a training under way.

    Attributes
    ----------
    sample_every : int
        Steps between two sample grids; 0 draws one at the end only.
    probes : int
        Steps, evenly spaced in their logarithm, at which twins are read and the model's answers
        are compared with the base's; 0 for none.
    preview : tuple of str
        Prompts of sample grids, ``{}`` where the token goes.
    preview_seeds : tuple of int
    """

    sample_every: int = 250
    probes: int = 20
    preview: tuple[str, ...] = PREVIEW
    preview_seeds: tuple[int, ...] = SEEDS

    def __post_init__(self) -> None:
        for name in ("sample_every", "probes"):
            check_within(name, getattr(self, name), 0)
        for name in ("preview", "preview_seeds"):
            if not 1 <= (count := len(getattr(self, name))) <= MOST:
                raise UsageError("E202", f"{name} has {count} values", f"use 1 to {MOST}")

    @property
    def grid(self) -> int:
        """Pictures of a sample grid."""
        return len(self.preview) * len(self.preview_seeds)


USUAL = WatchSettings()


def read_watch(sample_every: int, probes: int, preview: str, seeds: str) -> WatchSettings:
    """What is shown, from options; prompts are read here, once for all processes.

    Parameters
    ----------
    sample_every, probes : int
    preview : str
        File of prompts, one a line, ``{}`` where the token goes; empty for :data:`PREVIEW`.
    seeds : str
        Separated by commas.

    Raises
    ------
    DataError
        If the file can't be read, or its lines can't be used.
    UsageError
        If a value is out of range, or there are too many of them.
    """
    prompts = read_prompts(Path(preview), "preview") if preview else PREVIEW
    return WatchSettings(sample_every, probes, prompts, parse_seeds(seeds))
