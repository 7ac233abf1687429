"""``pti world``: the embedded world's pictures, samples, training and check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pti_pipeline.cli.group import Group
from pti_pipeline.cli.options import EXAMPLE, SEED, made_folder, option, sampling
from pti_pipeline.settings import SampleSettings


@click.group(cls=Group)
def world() -> None:
    """Build and check the embedded world: its pictures and its models."""


@world.command("train")
@option("folder", "world-training", "Folder of the training's state.")
@option("parts", "", "Parts to train, separated by commas; all by default.")
@option("seed", 0, "Of every draw.", type=SEED)
@option(
    "updates",
    0,
    "Updates of each part; its own number by default.",
    type=click.IntRange(0, 10_000_000),
)
def train(folder: str, parts: str, seed: int, updates: int) -> None:
    """Train the embedded model part by part, going on from the state found."""
    from pti_pipeline.steps.world_training import PARTS, check_parts, follow_training

    chosen = check_parts(parts.split(",")) if parts else PARTS
    follow_training(Path(folder), chosen, seed, updates)


@world.command("export")
@option("folder", "world-training", "Folder of the training's state.")
@option("weights", "world-weights", "Folder to write; a Stable Diffusion folder.")
def export(folder: str, weights: str) -> None:
    """Put the trained parts together as a folder that diffusers opens."""
    from pti_pipeline.steps.world_training.export import export_world

    export_world(Path(folder), Path(weights))


@world.command("check")
@option("folder", "", "A world's folder; the embedded one by default.")
@option(
    "quick",
    "no",
    "yes: under a minute; fewer samples (close gates vary), nothing on spread and leak.",
    type=click.Choice(["yes", "no"]),
)
@option("results", "", "Where to write the measures, a .json file.")
@option("output", "", "Where to write four rows of samples, a .png file.")
@sampling
def check(**o: Any) -> None:
    """Measure how far the world can be trusted; fail where a gate is missed."""
    from PIL import Image

    from pti_pipeline.families import WORLD
    from pti_pipeline.steps.world_check import (
        FULL,
        QUICK,
        check_world,
        picture,
        table,
        write_results,
    )
    from pti_pipeline.steps.world_check.measure import Measure, covers, load_known, verdict

    effort = QUICK if o["quick"] == "yes" else FULL
    how = SampleSettings(o["sampling_steps"], o["guidance"])
    folder = Path(o["folder"] or WORLD)
    for file in filter(None, (o["results"], o["output"])):
        made_folder(str(Path(file).parent))
    measures, drawn, shown = [], 0, None
    for found in check_world(effort, how, folder):
        if isinstance(found, Measure):
            measures.append(found)
        else:
            drawn += len(found.prompts)
            shown = shown or found
            click.echo(f"\r{drawn} samples drawn", nl=False, err=True)
    click.echo(err=True)
    known = load_known(folder)
    click.echo(table(measures, known))
    for miss in known:
        if any(not m.passed and covers(miss, m) for m in measures):
            click.echo(f"missed (known), {miss.group} {miss.name}: {miss.reason} ({miss.date})")
    if o["results"]:
        write_results(measures, effort, Path(o["results"]))
    if o["output"] and shown:
        Image.fromarray(picture(shown)).save(o["output"])
    missed = [m for m in measures if verdict(m, known) == "missed"]
    if missed:
        raise click.ClickException(f"{len(missed)} gates missed")


@world.command("sample")
@option("prompt", "a photo of a red cat", "What the base model is to draw.")
@option("count", 8, "Pictures to draw.", type=click.IntRange(1, 512))
@option("seed", 0, "Of the first picture.", type=SEED)
@option("output", "samples.png", "File of the grid.")
@option("folder", "", "A world's folder; the embedded one by default.")
@sampling
def sample(**o: Any) -> None:
    """Draw samples of the base model."""
    from pti_pipeline.steps.world_pictures import sample_world, save_grid

    how, file = SampleSettings(o["sampling_steps"], o["guidance"]), Path(o["output"])
    made_folder(str(file.parent))
    pictures = sample_world(o["folder"] or "world", o["prompt"], o["count"], o["seed"], how)
    save_grid(pictures, file)
    click.echo(f"{o['count']} samples in {o['output']}.")


@world.command("render")
@option("folder", EXAMPLE, "Folder to write, one .png file a picture.")
@option("character", "mochi", "Held-out character; empty for random ones.")
@option("factors", "", "Factors to hold, such as species=cat,scene=snow.")
@option("constant", "", "What stays as in the first picture: position or scene.")
@option("twins", "", "Draw twins of the pictures instead, with another position, pose or scene.")
@option("count", 6, "Pictures to draw.", type=click.IntRange(1, 10_000))
@option("seed", 0, "Of every draw.", type=SEED)
@option("size", 192, "Side of the pictures in pixels.", type=click.IntRange(16, 4096))
def render(**o: Any) -> None:
    """Render pictures of a held-out character: a training folder, a control or its twins."""
    from pti_pipeline.steps.world_pictures import choose_factors, save_pictures
    from pti_pipeline.world import render as draw

    names = ("character", "factors", "constant", "twins", "count", "seed")
    chosen = choose_factors(*(o[name] for name in names))
    save_pictures(draw(chosen, o["size"]), chosen, made_folder(o["folder"]))
    click.echo(f"{o['count']} pictures in {o['folder']}.")


@world.command("blind")
@option("folder", "docs", "Folder for images/blind.png and results/blind.json.")
@option("seed", 0, "Of the prompts and the pictures.", type=SEED)
@option("base", "world", "A world's folder; the embedded one by default.")
@sampling
def blind(**o: Any) -> None:
    """Draw numbered samples to be named by someone who sees the pictures only."""
    from pti_pipeline.steps.world_pictures import blind_sheet, write_asked

    folder, how = made_folder(o["folder"]), SampleSettings(o["sampling_steps"], o["guidance"])
    figure, asked = blind_sheet(o["base"], o["seed"], how)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "images" / "blind.png")
    write_asked(asked, folder / "results" / "blind.json")
    click.echo(f"{len(asked)} samples in {folder}/images/blind.png; write down what they show.")


@world.command("sheet")
@option("folder", "docs/images", "Folder for characters.png and factors.png.")
def contact_sheets(folder: str) -> None:
    """Draw the factors, and the held-out characters with their twins and controls, on sheets."""
    from pti_pipeline.steps.world_pictures import factor_sheet, held_out_sheet

    made_folder(folder)
    for name, figure in (("factors", factor_sheet()), ("characters", held_out_sheet())):
        figure.savefig(Path(folder) / f"{name}.png")
    click.echo(f"Two sheets in {folder}.")
