"""Options that several commands share. Every option takes a value: MLproject can pass no flags."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click

from pti_pipeline.cli.sparing import BASE_BITS, OFFLOAD, PRECISION
from pti_pipeline.errors import UsageError
from pti_pipeline.ranges import MOST, SEEDS
from pti_pipeline.settings import (
    AT_DISTANCE,
    REG_LATENTS,
    REG_TIMESTEPS,
    STEPS,
    BaseSettings,
)

EXAMPLE = "examples/mochi"
EVERY = "At which steps the regularizer is taken: every k-th, k times as heavy."
"""The demo's pictures."""

SEED = click.IntRange(0, SEEDS - 1)

Command = Callable[..., Any]


def whole(name: str, least: int) -> click.IntRange:
    """Whole numbers that an option takes."""
    return click.IntRange(least, MOST[name])


def option(name: str, default: Any, text: str, **more: Any) -> Callable[[Command], Command]:
    """Return an option that always takes a value and shows its default."""
    return click.option(f"--{name}", default=default, show_default=True, help=text, **more)


def wrapped(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Put options around a command; the last one given is listed first."""
    for wrap in options:
        command = wrap(command)
    return command


def place(command: Command) -> Command:
    """Add the options of every step that uses the base model."""
    return wrapped(
        command,
        BASE_BITS,
        OFFLOAD,
        PRECISION,
        option(
            "device", "auto", "Where to run.", type=click.Choice(["auto", "cuda", "mps", "cpu"])
        ),
        option(
            "base",
            "world",
            "Base model: world (embedded), a folder, a .safetensors file or a hub id.",
        ),
    )


def executing(command: Command) -> Command:
    """Add the options that say where a sweep's packs run."""
    return wrapped(
        command,
        option("ray-address", "", "host:port of a Ray cluster; without, one is started here."),
        option(
            "executor",
            "local",
            "local: one process for each core or GPU; ray: a Ray cluster.",
            type=click.Choice(["local", "ray"]),
        ),
    )


def study(command: Command) -> Command:
    """Add the option that joins a step to a study."""
    return option("study", "", "Run id of the study that this step belongs to.")(command)


def resuming(command: Command) -> Command:
    """Add the option that says what becomes of an interrupted run."""
    return option(
        "resume",
        "auto",
        "auto: go on with the run of the same settings that was interrupted; no: make another; or "
        "the id of the run to go on with.",
    )(command)


def training(command: Command) -> Command:
    """Add the options of every training."""
    return wrapped(
        command,
        option("clip", 0.0, "Largest gradient norm; 0: no clipping.", type=click.FloatRange(0)),
        option("batch-size", 4, "Rows of each optimizer update.", type=whole("batch_size", 1)),
        option("steps", STEPS, "Optimizer updates.", type=whole("steps", 1)),
    )


def stopping(command: Command) -> Command:
    """Add the options that end a training, or hold it, before its last step."""
    return wrapped(
        command,
        option(
            "stop-at-leak",
            "no",
            "Stop when a position is being learnt, by twins read every 50 steps: yes or no.",
            type=bool,
        ),
        option(
            "at-distance",
            "stop",
            "There: stop, or project back to it and train on.",
            type=click.Choice(AT_DISTANCE),
        ),
        option(
            "until-distance",
            0.0,
            "Bound on distance/delta_norm; 0: none.",
            type=click.FloatRange(0),
        ),
    )


def regularizing(command: Command) -> Command:
    """Add the options that keep a tuning near the base model."""
    return wrapped(
        command,
        option(
            "reg-bank",
            256,
            "Answers of the base model, computed once, that it draws from; 0: asked at each step.",
            type=whole("reg_bank", 0),
        ),
        option(
            "reg-timesteps",
            "even",
            "Its weight by timestep: even, or noisy, in proportion to it.",
            type=click.Choice(REG_TIMESTEPS),
        ),
        option(
            "reg-latents",
            "base",
            "What it looks at: samples of the base model, or the training pictures.",
            type=click.Choice(REG_LATENTS),
        ),
        option(
            "kappa",
            0.5,
            "Of locality: radius around the pivot, in distances from initializer to pivot.",
            type=float,
        ),
        option("reg-every", 1, EVERY, type=whole("reg_every", 1)),
        option("reg-weight", 1.0, "Weight of its loss, beside 1 for the pictures'.", type=float),
        option(
            "regularizer",
            "none",
            "none, locality, class-preservation, prior-preservation, timestep-rank, or weight-ball "
            "(of radius --until-distance).",
        ),
    )


def comparing(command: Command) -> Command:
    """Add the options that name who compares pictures, of bases other than the world."""
    return wrapped(
        command,
        option("dino-model", "", "DINO model that compares pictures: a folder or a hub id."),
        option(
            "clip-model",
            "",
            "CLIP model that compares pictures and prompts: a folder or a hub id.",
        ),
    )


def sampling(command: Command) -> Command:
    """Add the options of every step that draws pictures."""
    return wrapped(
        command,
        option("guidance", 3.0, "Classifier-free guidance scale.", type=click.FloatRange(1)),
        option("sampling-steps", 20, "Steps of the sampler.", type=whole("sampling_steps", 1)),
    )


def subject(command: Command) -> Command:
    """Add the options that say whom to learn."""
    return wrapped(
        command,
        option("initializer", "rabbit", "Word that the token starts from; one token of the base."),
        option("token", "<mochi>", "Placeholder token: the character's new name in prompts."),
        option("images", EXAMPLE, "Folder with 4 to 20 pictures of one subject."),
    )


def base_settings(o: dict[str, Any]) -> BaseSettings:
    """Settings of :func:`place`'s options, or of those of them that a command has."""
    return BaseSettings(**{f.name: o[f.name] for f in fields(BaseSettings) if f.name in o})


def regularizer_settings(o: dict[str, Any]) -> dict[str, Any]:
    """Settings of :func:`regularizing`'s options, as a tuning has them."""
    names = ("weight", "every", "latents", "timesteps", "bank")
    return {k: o[k] for k in ("regularizer", "kappa", *(f"reg_{name}" for name in names))}


def made_folder(text: str) -> Path:
    """Make the folder that results go to, before there are any.

    Raises
    ------
    UsageError
        If nothing can be written there.
    """
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            return path
    except OSError as error:
        what = f"can't write to '{text}' ({error.strerror or error})"
        raise UsageError("E263", what, "name another folder") from error


def find_folder(text: str) -> Path:
    """Resolve a folder, looking for the project's own examples also from elsewhere."""
    path = Path(text)
    beside = Path(__file__).parents[2] / text
    return beside if not os.path.exists(path) and os.path.isdir(beside) else path
