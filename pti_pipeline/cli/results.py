"""The commands that follow a training: ``pti evaluate``, ``select`` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pti_pipeline.cli.options import base_settings, option, place, sampling, study
from pti_pipeline.settings import SampleSettings


@click.command()
@click.option("--run", required=True, help="Run id of an invert or finetune run, or of a sweep.")
@option("samples", 64, "Samples without a position in the prompt.", type=click.IntRange(8))
@option("edit-seeds", 4, "Samples of each edit prompt.", type=click.IntRange(1))
@sampling
@place
@study
def evaluate(**o: Any) -> None:
    """Measure reconstruction, editability and leak, and draw sample grids at fixed seeds."""
    how = SampleSettings(o["sampling_steps"], o["guidance"])
    from pti_pipeline.steps.evaluate import evaluate

    run = evaluate(base_settings(o), o["run"], o["samples"], o["edit_seeds"], how, o["study"])
    click.echo(f"Evaluated in run {run}.")


@click.command()
@click.option("--run", required=True, help="Run id of an evaluated sweep.")
@study
def select(**o: Any) -> None:
    """Choose the knee (of inversions) or the limit (of tunings) from a sweep's runs."""
    from pti_pipeline.steps.select import select

    chosen, choice = select(o["run"], o["study"])
    click.echo(f"Chosen: {chosen.name} ({chosen.id}): {choice.reason}.")


@click.command()
@click.option(
    "--run", required=True, help="Run id of a finetune run, or of a sweep that chose one."
)
@option("name", "", "Of the registered model; the token's letters by default.")
@option("alias", "champion", "Alias that the version gets.")
@study
def register(**o: Any) -> None:
    """Put a chosen LoRA and its pivot into the model registry."""
    from pti_pipeline.steps.register import register

    name, version = register(o["run"], o["name"], o["alias"], o["study"])
    click.echo(f"Registered as models:/{name}@{o['alias']}, version {version}.")


@click.command()
@click.option("--run", required=True, help="Run id of a study (of main).")
@option("output", "report", "Folder for the page and its figures.")
def report(**o: Any) -> None:
    """Write a study's report: one HTML page that needs no network, and its figures as PNG.

    They are logged under report/ of the study's run too.
    """
    from pti_pipeline.steps.report import report

    folder = Path(o["output"])
    report(o["run"], folder)
    click.echo(f"Report in {folder / 'index.html'}.")


@click.command()
@option("model", "models:/mochi@champion", "Registered version, or a bundle's folder.")
@option("prompt", "a photo of {}", "{} stands for the character's token.")
@option("count", 4, "Pictures to draw.", type=click.IntRange(1, 64))
@option("seed", 0, "Of the first picture.", type=int)
@option("output", "generated", "Folder for the pictures.")
@sampling
@option("base", "", "Base model, if it is elsewhere than at training.")
@option("device", "auto", "Where to run.", type=click.Choice(["auto", "cuda", "mps", "cpu"]))
@option("precision", "fp32", "Of the frozen base.", type=click.Choice(["fp32", "bf16", "fp16"]))
def generate(**o: Any) -> None:
    """Draw pictures of a registered character."""
    how = SampleSettings(o["sampling_steps"], o["guidance"])
    from pti_pipeline.steps.generate import generate

    files = generate(
        base_settings(o), o["model"], o["prompt"], o["count"], o["seed"], how, Path(o["output"])
    )
    click.echo(f"{len(files) - 1} pictures, side by side in {files[-1]}.")
