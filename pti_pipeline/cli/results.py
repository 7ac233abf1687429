"""The commands that follow a training: ``pti evaluate``, ``select`` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pti_pipeline.cli.options import (
    SEED,
    base_settings,
    comparing,
    find_folder,
    made_folder,
    option,
    place,
    sampling,
    study,
    whole,
)
from pti_pipeline.cli.sparing import PRECISION
from pti_pipeline.errors import UsageError
from pti_pipeline.settings import SampleSettings
from pti_pipeline.values import parse_weights


@click.command()
@option("run", "", "Run id of an invert or finetune run, or of a sweep.")
@option(
    "lora",
    "",
    "Instead of --run: a LoRA made elsewhere, .safetensors, its embedding inside or not.",
)
@option("embedding", "", "Instead of --run: a learned embedding made elsewhere, .safetensors.")
@option("images", "", "Of files made elsewhere: folder of the pictures they learned from.")
@option("token", "", "Of files made elsewhere: what stands for the subject in prompts.")
@option("initializer", "", "Of files made elsewhere: the subject's class word.")
@option("samples", 64, "Samples without a position in the prompt.", type=whole("samples", 8))
@option("edit-seeds", 4, "Samples of each edit prompt.", type=whole("edit_seeds", 1))
@option(
    "deciding",
    5,
    "Of a sweep of tunings, distances that are sampled, where twins see positions start; 0: all.",
    type=whole("deciding", 0),
)
@comparing
@sampling
@place
@study
def evaluate(**o: Any) -> None:
    """Measure reconstruction, editability and leak, and draw sample grids at fixed seeds.

    Of a run (or every run of a sweep), whose numbers go into it; or of a LoRA and an embedding
    made elsewhere, in a run of their own.
    """
    how = SampleSettings(o["sampling_steps"], o["guidance"])
    drawn = o["samples"], o["edit_seeds"], how
    _check_subject(o)
    from pti_pipeline.tracking.find import check_study

    check_study(o["study"])
    if o["run"]:
        from pti_pipeline.steps.evaluate import evaluate

        last = o["study"], o["clip_model"], o["dino_model"], o["deciding"]
        run = evaluate(base_settings(o), o["run"], *drawn, *last)
    else:
        from pti_pipeline.meter import Meter
        from pti_pipeline.steps.evaluate_files import Files, evaluate_files

        images, readers = find_folder(o["images"]), (o["clip_model"], o["dino_model"])
        meter = Meter(base_settings(o), images, o["initializer"], *drawn, *readers)
        lora, embedding = (Path(o[name]) if o[name] else None for name in ("lora", "embedding"))
        run = evaluate_files(meter, Files(lora, embedding, o["token"]), o["study"])
    click.echo(f"Evaluated in run {run}.")


def _check_subject(o: dict[str, Any]) -> None:
    """Raise ``UsageError`` unless it is said what to measure, in one of the two ways."""
    files = [name for name in ("lora", "embedding") if o[name]]
    if bool(o["run"]) == bool(files):
        hint = "give --run, or else --lora or --embedding"
        raise UsageError("E231", "it must be either a run or files that are evaluated", hint)
    rest = ("images", "token", "initializer")
    if files and not all(o[name] for name in rest):
        lacking = ", ".join(f"--{name}" for name in rest if not o[name])
        raise UsageError("E231", f"files made elsewhere need {lacking} too", "add them")


@click.command()
@click.option("--run", required=True, help="Run id of an evaluated sweep.")
@study
def select(**o: Any) -> None:
    """Choose the knee (of inversions) or the limit (of tunings) from a sweep's runs."""
    from pti_pipeline.steps.select import select
    from pti_pipeline.tracking.find import check_study

    check_study(o["study"])
    chosen, choice = select(o["run"], o["study"])
    click.echo(f"Chosen: {chosen.name} ({chosen.id}): {choice.reason}.")


@click.command()
@click.option(
    "--run", required=True, help="Run id of a finetune run, or of a sweep that chose one."
)
@option("name", "", "Of the registered model; the token's letters by default.")
@option("alias", "champion", "Alias that the version gets.")
@option("force", "no", "Register what collapsed or leaks all the same: yes or no.", type=bool)
@study
def register(**o: Any) -> None:
    """Put a chosen LoRA and its pivot into the model registry.

    What collapsed, or copies the positions of its pictures, is refused unless forced.
    """
    from pti_pipeline.steps.register import register
    from pti_pipeline.tracking.find import check_study

    check_study(o["study"])
    made = register(o["run"], o["name"], o["alias"], o["study"], o["force"])
    click.echo(f"Registered as models:/{made.name}@{o['alias']}, version {made.version}.")
    if made.gate != "passed":
        click.echo(f"Beware: {made.gate}.", err=True)


@click.command()
@click.option("--run", required=True, help="Run id of a study (of main).")
@option("output", "report", "Folder for the page and its figures.")
def report(**o: Any) -> None:
    """Write a study's report: one HTML page that needs no network, and its figures as PNG.

    They are logged under report/ of the study's run too.
    """
    from pti_pipeline.steps.report import report

    folder = made_folder(o["output"])
    report(o["run"], folder)
    click.echo(f"Report in {folder / 'index.html'}.")


@click.command()
@option(
    "model",
    "models:/mochi@champion",
    "Registered version, run id or bundle's folder; several, separated by commas, are drawn "
    "together.",
)
@option("weights", "", "Of several characters' LoRAs, e.g. 1,0.7; 1 each by default.")
@option("prompt", "a photo of {}", "{} stands for the characters' tokens.")
@option("count", 4, "Pictures to draw.", type=click.IntRange(1, 64))
@option("seed", 0, "Of the first picture.", type=SEED)
@option("output", "generated", "Folder for the pictures.")
@sampling
@option("base", "", "Base model, if it is elsewhere than at training.")
@option("device", "auto", "Where to run.", type=click.Choice(["auto", "cuda", "mps", "cpu"]))
@PRECISION
def generate(**o: Any) -> None:
    """Draw pictures of a registered character, or of several together."""
    how, weights = SampleSettings(o["sampling_steps"], o["guidance"]), parse_weights(o["weights"])
    from pti_pipeline.steps.generate import generate

    who, folder = (o["model"].split(","), weights, o["prompt"]), made_folder(o["output"])
    files = generate(base_settings(o), *who, o["count"], o["seed"], how, folder)
    click.echo(f"{len(files) - 1} pictures, side by side in {files[-1]}.")
