"""Options of what a training descends: weights of its loss, noise, and what it sees."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import click

from pti_pipeline.cli.options import Command, option, whole, wrapped
from pti_pipeline.objective import RANGES, WEIGHTINGS, Objective
from pti_pipeline.ranges import SWITCH


def objective(command: Command) -> Command:
    """Add the options of what a training descends."""
    return wrapped(
        command,
        option(
            "templates",
            "",
            "File of prompts for pictures without a caption, one a line, {} for the token.",
        ),
        option(
            "buckets",
            "no",
            "Keep the aspect ratios of pictures, about: yes or no, which cuts squares.",
            type=click.Choice(SWITCH),
        ),
        option(
            "crops",
            1,
            "Parts of each picture: 1, the largest centered one; more, others beside it.",
            type=whole("crops", 1),
        ),
        option(
            "flip",
            "no",
            "Mirror half of what is drawn: yes or no. Not for who is not symmetric: an emblem or "
            "a parting would be learned on both sides.",
            type=click.Choice(SWITCH),
        ),
        _number("background", 1.0, "Weight of the loss outside the subject's mask, if below 1."),
        _number(
            "timestep-bias",
            0.0,
            "Above 0 noisier timesteps are drawn more often, below 0 cleaner ones.",
        ),
        option(
            "timestep-range",
            "0,1",
            "Part of the noise schedule that is trained, in shares of it: 0 is clean, 1 noise.",
        ),
        _number("offset-noise", 0.0, "Strength of noise that is the same all over a channel."),
        _number("min-snr-gamma", 5.0, "Of min-snr: signal over noise from which it weighs alike."),
        option(
            "weighting",
            "none",
            "Of the loss by timestep: none, min-snr (Hang et al.) or debiased (Yu et al.).",
            type=click.Choice(WEIGHTINGS),
        ),
    )


def objective_settings(o: dict[str, Any]) -> dict[str, Any]:
    """Settings of :func:`objective`'s options."""
    values = {field.name: o[field.name] for field in fields(Objective)}
    file = values["templates"]
    return values | {"templates": os.path.abspath(file) if file else ""}


def _number(name: str, default: float, text: str) -> Any:
    return option(name, default, text, type=click.FloatRange(*RANGES[name.replace("-", "_")]))
