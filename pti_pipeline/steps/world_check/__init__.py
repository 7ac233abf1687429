"""Measures how far the embedded world can be trusted: ``pti world check``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pti_pipeline.errors import ModelError
from pti_pipeline.evaluation import layouts
from pti_pipeline.families import WORLD, load
from pti_pipeline.figures import grid
from pti_pipeline.known_misses import KnownMiss
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings
from pti_pipeline.steps.world_check import laboratory, obeying, parts, reading
from pti_pipeline.steps.world_check.drawing import (
    Samples,
    captions,
    joined,
    sample_base,
    silent_prompts,
)
from pti_pipeline.steps.world_check.measure import Measure, verdict
from pti_pipeline.world.reader import load_reader

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "clip", "reader")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes
    ----------
    renders : int
        Clean renders read and coded.
    said : int
        Samples of captions.
    silent : int
        Samples of prompts that leave place, pose and scene open, with and without guidance.
    pool : int
        Samples that the leak's null is drawn from; the silent ones are among them.
    resamples : int
        Leak tests of the null.
    """

    renders: int
    said: int
    silent: int
    pool: int
    resamples: int


FULL = Effort(renders=2000, said=512, silent=512, pool=2048, resamples=400)
QUICK = Effort(renders=400, said=128, silent=0, pool=0, resamples=0)
"""Under a minute; what needs many samples (spread and the leak's null) is left out."""


def check_world(
    effort: Effort, how: SampleSettings, folder: Path = WORLD
) -> Iterator[Measure | Samples]:
    """Measure a world's folder, a line at a time.

    Parameters
    ----------
    effort : Effort
    how : SampleSettings
        How the samples are drawn.
    folder : Path
        As ``pti world export`` writes it.

    Yields
    ------
    Measure
        A line of the table.
    Samples
        64 pictures, whenever they have been drawn (to show that it goes on).

    Raises
    ------
    ModelError
        If the folder lacks a part.
    """
    missing = [name for name in PARTS if not (folder / name).is_dir()]
    if missing:
        raise ModelError(
            "E409",
            f"'{folder}' is no world: it has no {', no '.join(missing)}",
            "give a folder made by pti world export",
        )
    reader = load_reader(folder / "reader" / "model.safetensors")
    base = load(str(folder), "cpu")
    yield from reading.clean_renders(reader, effort.renders)
    yield from parts.round_trip(base, effort.renders // 4)
    yield from parts.retrieval(folder)
    yield from laboratory.energies(effort.renders)
    yield from parts.size(folder)
    yield from parts.speed(base, how)

    drawn: list[Samples] = []
    for part in sample_base(base, captions(effort.said)[1], how):
        drawn.append(part)
        yield part
    yield from obeying.obedience(reader, joined(drawn))
    yield from reading.agreement(reader, joined(drawn).images)
    if not effort.pool:
        return

    plain: list[Samples] = []
    for part in sample_base(base, silent_prompts(effort.silent), SampleSettings(how.steps, 1.0)):
        plain.append(part)
        yield part
    yield from obeying.freedom("spread, no guidance", reader, joined(plain).images)
    pool: list[Samples] = []
    for part in sample_base(base, silent_prompts(effort.pool), how):
        pool.append(part)
        yield part
    images = joined(pool).images
    yield from obeying.freedom("spread, guided", reader, images[: effort.silent])
    positions = layouts(reader.read(images))
    yield from laboratory.null_of_the_leak(positions, effort.resamples)


def picture(samples: Samples, columns: int = 12) -> NDArray[np.uint8]:
    """Lay out four rows of samples."""
    return grid(to_uint8(samples.images[: 4 * columns]), columns)


def table(measures: Sequence[Measure], known: Sequence[KnownMiss] = ()) -> str:
    """Lay the measures out as a Markdown table, what is missed in bold."""
    lines = [
        "| what | of | measured | gate | chance | |",
        "|---|---|---|---|---|---|",
    ]
    for m in measures:
        chance = "" if m.chance is None else f"{m.chance:.2f}"
        said = verdict(m, known)
        shown = f"**{said}**" if said.startswith("missed") else said
        lines.append(f"| {m.group} | {m.name} | {m.value:.3f} | {m.gate} | {chance} | {shown} |")
    return "\n".join(lines)


def write_results(measures: Sequence[Measure], effort: Effort, path: Path) -> None:
    """Write the measures, and how much was measured, as JSON."""
    rows = [{**asdict(m), "passed": m.passed} for m in measures]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"effort": asdict(effort), "measures": rows}, indent=1) + "\n", "utf-8"
    )
