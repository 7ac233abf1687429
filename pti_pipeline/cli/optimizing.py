"""Options of how a training's parameters are updated."""

from __future__ import annotations

from typing import Any

import click

from pti_pipeline.cli.options import Command, option
from pti_pipeline.settings import OPTIMIZERS

OPTIONS = (
    option(
        "optimizer",
        "adam",
        "adam, or prodigy, which finds its learning rate: --lr is then a factor, usually 1.",
        type=click.Choice(OPTIMIZERS),
    ),
)
"""In the order in which they are listed."""


def optimizing(command: Command) -> Command:
    """Add the options of how parameters are updated."""
    for wrap in reversed(OPTIONS):
        command = wrap(command)
    return command


def optimizer_settings(o: dict[str, Any]) -> dict[str, Any]:
    """Settings of :func:`optimizing`'s options."""
    return {key: o[key] for key in ("optimizer",)}
