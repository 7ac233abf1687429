"""What the LoRAs of a pack have in common, in peft's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = ("timestep_rank",)
"""Settings of a LoRA that peft does not know."""


@dataclass(frozen=True)
class Config:
    """How LoRAs are made, whatever their values.

    Attributes
    ----------
    rank, alpha : int, float
    targets : tuple of str
        Endings of the names of the denoiser's layers.
    rslora : bool
        Whether they are scaled by alpha / sqrt(rank).
    dora : bool
        Whether rows of the weights have magnitudes, see :mod:`pti_pipeline.dora`.
    timesteps : int
        Of the base, if noisier rows use fewer ranks; else 0.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = ()
    rslora: bool = False
    dora: bool = False
    timesteps: int = 0

    @property
    def scale(self) -> float:
        """What B A is multiplied with.

        Examples
        --------
        >>> Config(4, 2.0).scale, Config(4, 2.0, rslora=True).scale
        (0.5, 1.0)
        """
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def plain_alpha(self) -> float:
        """Alpha of those who know alpha / rank alone, for the same scale."""
        return self.alpha * (math.sqrt(self.rank) if self.rslora else 1)

    def facts(self) -> dict[str, Any]:
        """As it is saved with the weights: by peft's names, and :data:`OURS`."""
        more = {"use_rslora": self.rslora, "use_dora": self.dora, "timestep_rank": self.timesteps}
        usual = {"r": self.rank, "lora_alpha": self.alpha, "target_modules": list(self.targets)}
        return usual | {name: value for name, value in more.items() if value}

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Config:
        """Read what :meth:`facts` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing, or no number.
        """
        targets = tuple(str(t) for t in facts.get("target_modules") or ())
        found = cls(
            int(facts["r"]),
            float(facts["lora_alpha"]),
            targets,
            bool(facts.get("use_rslora", False)),
            bool(facts.get("use_dora", False)),
            int(facts.get("timestep_rank", 0)),
        )
        if found.rank < 1 or not math.isfinite(found.scale):
            raise ValueError(f"rank {found.rank}, alpha {found.alpha}")
        return found
