"""Options of how a training's parameters are updated."""

from __future__ import annotations

from typing import Any

import click

from pti_pipeline.cli.options import Command, option, whole
from pti_pipeline.settings import NORMS, OPTIMIZERS

OPTIMIZER = option(
    "optimizer",
    "adam",
    "adam; adam-8bit, which remembers in 8 bits; or prodigy, which finds its learning rate: "
    "--lr is then a factor, usually 1.",
    type=click.Choice(OPTIMIZERS),
)
OPTIONS = (
    OPTIMIZER,
    option(
        "ema",
        0.0,
        "Decay of the average over updates, e.g. 0.99, that is shown and kept; 0: none.",
        type=click.FloatRange(0),
    ),
    option(
        "micro-batch",
        0,
        "Rows of each batch in a pass at most; 0: as many as memory holds.",
        type=whole("micro_batch", 0),
    ),
    option(
        "checkpointing",
        "no",
        "Hold less for the backward pass, and compute it anew: yes or no.",
        type=bool,
    ),
)
"""In the order in which they are listed."""


def optimizing(command: Command) -> Command:
    """Add the options of how parameters are updated."""
    for wrap in reversed(OPTIONS):
        command = wrap(command)
    return command


def keeping_norm(command: Command) -> Command:
    """Add the option of what norm an inversion's vectors have."""
    return option(
        "norm",
        "free",
        "Of the learned vectors: free, or the vocabulary's median after every update.",
        type=click.Choice(NORMS),
    )(command)


def decaying(command: Command) -> Command:
    """Add the option of a LoRA's weight decay."""
    return option(
        "weight-decay",
        0.0,
        "Of the LoRA, in learning rates (AdamW); 0: none.",
        type=click.FloatRange(0),
    )(command)


def optimizer_settings(o: dict[str, Any]) -> dict[str, Any]:
    """Settings of :func:`optimizing`'s options."""
    return {key: o[key] for key in ("optimizer", "ema", "micro_batch", "checkpointing")}
