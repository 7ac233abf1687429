"""Pictures of the embedded world: renders of chosen factors, and samples of its base model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pti_pipeline.characters import class_word, draw
from pti_pipeline.errors import UsageError
from pti_pipeline.families import load
from pti_pipeline.figures import grid, sheet
from pti_pipeline.randomness import numpy_generator
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings
from pti_pipeline.world import Factors, concatenate, render, sample_factors, shade
from pti_pipeline.world import factors as f
from pti_pipeline.world.captions import SCENE_WORDS
from pti_pipeline.world.meaning import VALUES
from pti_pipeline.world.record import write_factors
from pti_pipeline.world.subjects import CHARACTERS, CONTROLS, TWINS, twins, views

SHADES = {"color": "rgb", "belly": "belly_rgb", "hat_color": "hat_rgb"}
PLACES = {
    "column": ("x", f.X_RANGE),
    "row": ("y", f.Y_RANGE),
    "size": ("size", f.SIZE_RANGE),
}


def choose_factors(
    character: str, held: str, constant: str, twin: str, count: int, seed: int
) -> Factors:
    """Draw the factors of ``count`` pictures.

    Parameters
    ----------
    character : str
        A held-out character's name, or nothing for random ones.
    held : str
        ``factor=value`` pairs, separated by commas; hold in every picture.
    constant : str
        What stays as in the first picture: ``position``, ``scene`` or nothing.
    twin : str
        Kind of twins to draw instead: ``position``, ``pose``, ``scene``, ``all`` or nothing.
    count, seed : int

    Raises
    ------
    UsageError
        If a name is unknown.
    """
    known = {c.name: c for c in CHARACTERS}
    _one_of("character", character, ["", *known])
    _one_of("constant", constant, ["", *CONTROLS])
    _one_of("kind of twins", twin, ["", "all", *TWINS])
    if character:
        factors = views(known[character], count, seed, constant)
    else:
        factors = sample_factors(count, numpy_generator(seed, "render", 0))
    if twin:
        factors = twins(factors, seed, *([] if twin == "all" else [twin]))
    return hold(factors, parse_held(held), seed)


def parse_held(text: str) -> dict[str, int]:
    """Read ``species=cat,scene=snow`` into indices of :data:`VALUES`.

    Raises
    ------
    UsageError
        If a factor or a value is unknown; the message names those known.
    """
    held = {}
    for pair in filter(None, text.split(",")):
        name, _, value = (part.strip() for part in pair.partition("="))
        _one_of("factor", name, list(VALUES))
        _one_of(name, value, list(VALUES[name]))
        held[name] = VALUES[name].index(value)
    return held


def hold(factors: Factors, held: dict[str, int], seed: int) -> Factors:
    """Give every picture the values of ``held``; words of place and size mean their thirds."""
    n = len(factors)
    for name, value in held.items():
        rng = numpy_generator(seed, f"render/{name}", 0)
        drawn: dict[str, Any]
        if name in PLACES:
            column, (low, high) = PLACES[name]
            third = (high - low) / 3
            drawn = {column: rng.uniform(low + value * third, low + (value + 1) * third, n)}
        else:
            drawn = {name: np.full(n, value)}
            if name in SHADES:
                drawn[SHADES[name]] = shade(drawn[name], rng)
        factors = replace(factors, **drawn)
    return factors


def sample_world(
    base: str, prompt: str, count: int, seed: int, how: SampleSettings
) -> NDArray[np.uint8]:
    """Draw ``count`` samples with consecutive seeds; shape (count, S, S, 3), uint8."""
    seeds = range(seed, seed + count)
    return to_uint8(draw(load(base, "cpu"), class_word(), [prompt] * count, seeds, how)[0])


def held_out_sheet() -> Figure:
    """Draw every held-out character: a training folder, twins of its first picture, controls."""
    rows = {}
    for who in CHARACTERS:
        first = views(who, 1)
        others = [twins(first, 0, kind) for kind in TWINS]
        controls = [views(who, 3, constant=what) for what in CONTROLS]
        rows[who.name] = render(concatenate([views(who, 6), *others, *controls]), 96)
    blocks = {"training pictures": 6, "twins: " + ", ".join(TWINS): len(TWINS)}
    return sheet(rows, blocks | {f"constant {what}": 3 for what in CONTROLS})


PLAIN = (
    "species=bear,color=blue,belly=white,hat=none,hat_color=yellow,emblem=belly,eyes=black,"
    "arms=down,facing=right,column=middle,row=center,scene=beach,size=middling"
)
"""What the sheet of factors varies, one factor at a time."""


def factor_sheet() -> Figure:
    """Draw the values of every factor, all else held as in :data:`PLAIN`."""
    most = max(len(names) for names in VALUES.values())
    start = sample_factors(1, numpy_generator(0, "sheet", 0), held_out=True)
    rows = {}
    for name, names in VALUES.items():
        fixed = parse_held(PLAIN) | ({"hat": f.HATS.index("hat")} if name == "hat_color" else {})
        ones = [hold(start, fixed | {name: i}, 0) for i in range(len(names))]
        pictures = render(concatenate(ones), 96)
        empty = np.full((most - len(names), *pictures.shape[1:]), 255, np.uint8)
        rows[name.replace("_", " ")] = np.concatenate([pictures, empty])
    return sheet(rows, {"every factor and its values": most})


BLIND = ("species", "color", "hat", "scene")
"""What is asked for, and named, in each picture of the blind sheet."""


def blind_sheet(
    base: str, seed: int, how: SampleSettings, count: int = 48
) -> tuple[Figure, list[dict[str, str]]]:
    """Draw ``count`` numbered samples of random prompts, and say what was asked for in each."""
    factors = sample_factors(count, numpy_generator(seed, "blind", 0))
    hats = numpy_generator(seed, "blind", 1).integers(1, len(f.HATS), count)
    values = {name: getattr(factors, name) for name in BLIND} | {"hat": hats}
    asked = [{name: VALUES[name][values[name][i]] for name in BLIND} for i in range(count)]
    prompts = [
        f"a photo of a {a['color']} {a['species']} with a {a['hat']} {SCENE_WORDS[a['scene']][0]}"
        for a in asked
    ]
    seeds, columns = range(seed, seed + count), 8
    pictures = to_uint8(draw(load(base, "cpu"), class_word(), prompts, seeds, how)[0])
    starts = range(0, count, columns)
    rows = {f"{i + 1} to {i + columns}": pictures[i : i + columns] for i in starts}
    return sheet(rows, {"samples, numbered from the left": columns}), asked


def write_asked(asked: list[dict[str, str]], path: Path) -> None:
    """Write what was asked for, with room for what is named, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"number": i, "asked": a, "named": {}} for i, a in enumerate(asked, 1)]
    path.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def save_grid(pictures: NDArray[np.uint8], file: Path, columns: int = 8) -> None:
    """Write pictures side by side."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid(pictures, min(columns, len(pictures)))).save(file)


def save_pictures(pictures: NDArray[np.uint8], factors: Factors, folder: Path) -> None:
    """Write ``1.png``, ``2.png``, ... and their factors into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index + 1}.png" for index in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(folder / name)
    write_factors(factors, names, folder)


def _one_of(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        names = ", ".join(name for name in known if name)
        raise UsageError("E217", f"no {what} '{value}'", f"choose from {names}")
