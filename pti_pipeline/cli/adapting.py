"""Options of what a LoRA adapts, and how."""

from __future__ import annotations

from typing import Any

import click

from pti_pipeline.adaptation import ATTENTION, Adaptation, adaptation_of
from pti_pipeline.cli.options import Command, option
from pti_pipeline.ranges import SWITCH

OPTIONS = (
    option(
        "targets",
        ATTENTION,
        "Layers that the LoRA adapts: attention, attention+feed-forward, or endings of their "
        "names, separated by commas.",
    ),
    option(
        "rslora",
        "no",
        "Scale the LoRA by alpha / sqrt(rank): yes or no.",
        type=click.Choice(SWITCH),
    ),
    option(
        "text-encoder",
        "no",
        "A LoRA on the text encoders' attention too: yes or no.",
        type=click.Choice(SWITCH),
    ),
    option(
        "dora",
        "no",
        "Learn the magnitude of each row of the weights apart from its direction: yes or no.",
        type=click.Choice(SWITCH),
    ),
)
"""In the order in which they are listed."""


def adapting(command: Command) -> Command:
    """Add the options of what a LoRA adapts, and how."""
    for wrap in reversed(OPTIONS):
        command = wrap(command)
    return command


def adaptation_settings(o: dict[str, Any]) -> dict[str, Any]:
    """Settings of :func:`adapting`'s options."""
    return {name: o[name] for name in adaptation_of(Adaptation())}
