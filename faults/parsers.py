"""What reads a user's words, each given random ones: an error of ours, or what it promises."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import click

from faults.drawn import number, text
from pti_pipeline import headers, values
from pti_pipeline.cli import main
from pti_pipeline.cli.world import world
from pti_pipeline.preview import WatchSettings
from pti_pipeline.serving import LIMITS, read_request
from pti_pipeline.settings import FinetuneSettings, InvertSettings, SampleSettings
from pti_pipeline.steps.world_pictures import parse_held

COMMANDS = [
    command
    for group in (main, world)
    for command in group.commands.values()
    if not isinstance(command, click.Group)
]
"""All commands of the command line."""


def parsed_numbers(rng: Random, _: Path) -> None:
    """Lists of numbers hold distinct ones, in range."""
    rates = values.parse_learning_rates(text(rng))
    assert len(set(rates)) == len(rates) and all(math.isfinite(r) and r > 0 for r in rates)


def parsed_seeds(rng: Random, _: Path) -> None:
    """Seeds are distinct and below 2^32."""
    seeds = values.parse_seeds(text(rng))
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**32 for s in seeds)


def parsed_words(rng: Random, _: Path) -> None:
    """The other lists of values, and what is made of a token's and a base's name."""
    said = text(rng)
    word, name = headers.word_of(said), headers.base_name(said)
    assert word and not set(word) & set('/\\\0<>:"|?* \n') and "\\" not in name
    rng.choice((values.parse_weights, values.parse_forms, values.parse_pivots, parse_held))(said)


def parsed_vary(rng: Random, _: Path) -> None:
    """Settings and their values, as they are swept."""
    kind = rng.choice((InvertSettings, FinetuneSettings))
    known = ("rank", "vectors", "steps", "clip", "regularizer", "alpha", "batch_size", "kappa")
    said = text(rng) if rng.random() < 0.4 else f"{rng.choice(known)}:{text(rng)}"
    values.experiments((0.001,), (0,), values.parse_vary(said, kind), kind(0.001))


def settings(rng: Random, _: Path) -> None:
    """Settings are what they promise to be, or not made."""
    kind = rng.choice((FinetuneSettings, InvertSettings, SampleSettings, WatchSettings))
    names = [name for name, each in kind.__annotations__.items() if each in ("int", "float")]
    names += ["lr", "steps"] if kind in (FinetuneSettings, InvertSettings) else []
    given = {name: number(rng) for name in names if rng.random() < 0.3}
    if kind in (FinetuneSettings, InvertSettings):
        given = {"lr": 0.001, **given}
    made = kind(**given)
    assert all(math.isfinite(v) for v in vars(made).values() if isinstance(v, int | float))


def options(rng: Random, _: Path) -> None:
    """Command lines, up to the command itself."""
    found = rng.choice(COMMANDS)
    known = [each.opts[0] for each in found.params]
    words = [f"{rng.choice(known)}={text(rng, 3)}" for _ in range(rng.randint(0, 4))]
    if rng.random() < 0.2:
        words.append(text(rng))
    words = [word for word in words if not word.startswith("--help")]
    try:
        found.make_context(found.name, words)
    except click.exceptions.Exit as error:  # of --help, which may be shortened
        assert error.exit_code == 0
    except click.ClickException as error:
        assert error.exit_code == 2


def requests(rng: Random, _: Path) -> None:
    """What is asked of a served character."""
    names = ("count", "seed", "steps", "guidance")
    usual = {"count": 1, "seed": 0, "steps": 20, "guidance": 3.0}
    given = {name: number(rng) if rng.random() < 0.5 else usual[name] for name in names}
    prompts, seeds, how = read_request([text(rng)] * rng.randint(0, 5), given, 48, LIMITS)
    assert len(prompts) == len(seeds) <= LIMITS.pictures and how.steps <= LIMITS.steps


def told(rng: Random, _: Path) -> None:
    """Headers of exported files are text, whatever a character is called."""
    said = {f"tuning.{name}": text(rng) for name in ("lr", "steps", "seed")}
    facts = headers.Facts(
        text(rng), text(rng), text(rng), "f", rng.choice((64, 768, 1024)), 4, 4.0, "unet", said
    )
    all_told = headers.own(facts) | headers.kohya(facts, text(rng), "hint")
    all_told |= headers.modelspec(facts, "lora", text(rng), text(rng), "hint")
    assert all(isinstance(each, str) for each in all_told.values())
