"""What a LoRA adapts and how it is scaled, as a user may set it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from pti_pipeline.errors import UsageError
from pti_pipeline.ranges import SWITCH, check_word

ATTENTION = "attention"
FEED_FORWARD = "attention+feed-forward"
ENDING = re.compile(r"\w+(\.\w+)*")
"""The end of a layer's name, as peft matches it."""
LINEAR = ("project", "weight-ball", "timestep-rank")
"""What holds or masks an update that is linear in B A."""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What a LoRA adapts, and how.

    Attributes
    ----------
    targets : str
        ``attention``: its projections in the denoiser; ``attention+feed-forward``; or endings of
        layers' names, separated by commas.
    rslora : str
        ``yes``: it is scaled by alpha / sqrt(rank) in place of alpha / rank (Kalajdzievski 2023).
    text_encoder : str
        ``yes``: the attention of the text encoders that read the token gets a LoRA too.
    dora : str
        ``yes``: rows of the weights have magnitudes of their own (Liu et al. 2024).
    """

    targets: str = ATTENTION
    rslora: str = "no"
    text_encoder: str = "no"
    dora: str = "no"

    def __post_init__(self) -> None:
        _ = self.endings
        for name in ("rslora", "text_encoder", "dora"):
            check_word(name, getattr(self, name), SWITCH)

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the layers' names; none where :attr:`targets` is a name for them.

        Examples
        --------
        >>> Adaptation(targets="to_k,ff.net.2").endings
        ('to_k', 'ff.net.2')
        """
        if self.targets in (ATTENTION, FEED_FORWARD):
            return ()
        found = tuple(self.targets.split(","))
        if not all(map(ENDING.fullmatch, found)) or len({*found}) < len(found):
            hint = f"use {ATTENTION}, {FEED_FORWARD}, or endings such as to_k,to_v"
            raise UsageError("E202", f"targets is '{self.targets}'", hint)
        return found


def adaptation_of(adaptation: Adaptation) -> dict[str, Any]:
    """The adaptation alone, by name, of settings that have more than that."""
    return {field.name: getattr(adaptation, field.name) for field in fields(Adaptation)}


def check_held(adaptation: Adaptation, **ways: str) -> None:
    """Raise ``UsageError`` if a DoRA is to be held in ways that only a LoRA can be, by setting."""
    for name, way in ways.items():
        if adaptation.dora == "yes" and way in LINEAR:
            what = f"dora is 'yes' and {name} is '{way}'"
            raise UsageError("E202", what, "use one without the other")
