"""Options of what is shown of a training under way."""

from __future__ import annotations

import os
from typing import Any

import click

from pti_pipeline.cli.options import Command, option, whole, wrapped
from pti_pipeline.preview import SEEDS, WatchSettings, read_watch


def watching(command: Command) -> Command:
    """Add the options that say what is shown of a training under way."""
    return wrapped(
        command,
        option(
            "probes",
            20,
            "Steps, log-spaced, at which twins and functions are compared; 0: none.",
            type=whole("probes", 0),
        ),
        option(
            "preview-seeds",
            ",".join(map(str, SEEDS)),
            "Seeds of each prompt's pictures in sample grids.",
        ),
        option(
            "preview",
            "",
            "File of prompts for sample grids, one a line, {} for the token; three by default.",
            callback=_absolute,
        ),
        option(
            "sample-every",
            250,
            "Steps between two sample grids; 0: one at the end.",
            type=whole("sample_every", 0),
        ),
    )


def watch_settings(o: dict[str, Any]) -> WatchSettings:
    """Settings of :func:`watching`'s options."""
    return read_watch(o["sample_every"], o["probes"], o["preview"], o["preview_seeds"])


def _absolute(_: click.Context, __: click.Parameter, file: str) -> str:
    """Where a file is, for the processes of a study too."""
    return os.path.abspath(file) if file else ""
