"""The command ``pti``: one subcommand for each entry point of the MLproject file.

Whatever takes long to import is imported inside the commands: ``--help`` and usage errors are
instant.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pti_pipeline import __version__
from pti_pipeline.cli.options import executing, option, place, sampling, study, subject, training
from pti_pipeline.cli.world import world
from pti_pipeline.errors import PtiError
from pti_pipeline.settings import (
    STEPS,
    BaseSettings,
    FinetuneSettings,
    InvertSettings,
    SampleSettings,
    TrainSettings,
    experiments,
    parse_learning_rates,
    parse_pivots,
    parse_seeds,
    parse_vary,
)

# Libraries speak up at import; what they say is of no use to someone who runs a command.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# OpenMP's threads spin while they wait; on a busy machine that costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


class Group(click.Group):
    """Tells a user's errors in one line, with their own exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except PtiError as error:
            click.echo(str(error), err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Group, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="pti")
def main() -> None:
    """Personalise a text-to-image diffusion model by pivotal tuning.

    INVERT a character into a token (the pivot), FINETUNE a LoRA lightly around it, EVALUATE what
    was gained and lost against the distance travelled, and REGISTER the one chosen. MAIN does it
    all. Runs are kept in ./mlflow.db, or where MLFLOW_TRACKING_URI says.
    """


main.add_command(world)


@main.command("main")
@subject
@option("inversion-lrs", "0.0003,0.001,0.003,0.01", "Learning rates of the inversion's sweep.")
@option("tuning-lrs", "0.0003,0.001,0.003,0.01", "Learning rates of the tuning's sweep.")
@training
@option("vectors", 1, "Learned vectors of the token.", type=click.IntRange(1))
@option("rank", 4, "Rank of the LoRA.", type=click.IntRange(1))
@option("alpha", 4.0, "The LoRA is scaled by alpha / rank.", type=float)
@option("seeds", "0", "Seeds of each sweep.")
@option(
    "samples", 64, "Samples of each experiment, for appearance and leak.", type=click.IntRange(8)
)
@option("edit-seeds", 4, "Samples of each edit prompt.", type=click.IntRange(1))
@option("name", "", "Of the registered model; the token's letters by default.")
@option("alias", "champion", "Alias that the new version gets.")
@executing
@place
def main_command(**options: Any) -> None:
    """Run the whole study: both sweeps, both choices, the registration."""
    parse_learning_rates(options["inversion_lrs"])
    parse_learning_rates(options["tuning_lrs"])
    parse_seeds(options["seeds"])
    from pti_pipeline.studies.main import Plan, main

    if options["steps"] != STEPS:
        click.echo(f"Trains {options['steps']} steps where the default is {STEPS}.")
    options["images"] = str(_folder(options["images"]))
    click.echo("\n" + main(Plan(**options)))
    click.echo(
        f"Compare:  {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {_store()}"
    )


@main.command()
@subject
@option("lr", 0.005, "Learning rate.", type=str)
@training
@option("vectors", 1, "Learned vectors of the token.", type=click.IntRange(1))
@option("seed", 0, "Of every draw.", type=int)
@place
@study
def invert(**o: Any) -> None:
    """Learn the embedding of a placeholder token: the pivot.

    The base model stays frozen; the run holds the learned embedding, sample grids by step, and the
    distance from the initializer token at every step.
    """
    (lr,) = _one(parse_learning_rates(str(o["lr"])))
    settings = InvertSettings(**_training(o), lr=lr, vectors=o["vectors"])
    from pti_pipeline.steps.invert import prepare_inversion, run_inversions

    ready = prepare_inversion(_place(o), _folder(o["images"]), o["token"], o["initializer"])
    (run,) = run_inversions(ready, [settings], o["sample_every"], o["study"])
    click.echo(f"Pivot in run {run}. Next:  pti finetune --pivot {run}")


@main.command()
@click.option(
    "--pivot", required=True, help="Run id of an inversion, or of a sweep that chose one."
)
@option("images", "", "Folder of pictures; the inversion's own by default.")
@option("lr", 0.0003, "Learning rate.", type=str)
@training
@option("rank", 4, "Rank of the LoRA.", type=click.IntRange(1))
@option("alpha", 4.0, "The LoRA is scaled by alpha / rank.", type=float)
@option("seed", 0, "Of every draw.", type=int)
@place
@study
def finetune(**o: Any) -> None:
    """Train a LoRA lightly around a frozen pivot."""
    (lr,) = _one(parse_learning_rates(str(o["lr"])))
    own = {key: o[key] for key in ("pivot", "rank", "alpha")}
    settings = FinetuneSettings(**_training(o), lr=lr, **own)
    from pti_pipeline.steps.finetune import prepare_finetuning, run_finetunings

    images = _folder(o["images"]) if o["images"] else None
    ready = prepare_finetuning(_place(o), [settings], images)
    (run,) = run_finetunings(ready, [settings], o["sample_every"], o["study"])
    click.echo(f"LoRA in run {run}. Next:  pti evaluate --run {run}  or  pti register --run {run}")


@main.command()
@option("stage", "invert", "What is swept.", type=click.Choice(["invert", "finetune"]))
@subject
@option("pivot", "", "Run ids of inversions, separated by commas; for stage finetune.")
@option("lrs", "0.0003,0.001,0.003,0.01", "Learning rates, separated by commas.")
@option("seeds", "0", "Seeds, separated by commas.")
@option("vary", "", "A setting and its values, e.g. rank:4,8 or batch_size:1,4.")
@training
@option("vectors", 1, "Learned vectors of the token; for stage invert.", type=click.IntRange(1))
@option("rank", 4, "Rank of the LoRA; for stage finetune.", type=click.IntRange(1))
@option("alpha", 4.0, "The LoRA is scaled by alpha / rank; for stage finetune.", type=float)
@executing
@place
@study
def sweep(**o: Any) -> None:
    """Train one stage at every learning rate, seed and value of a setting, one run each.

    Experiments of equal shapes share one pass through the frozen base; packs of them run side by
    side, one for each core or GPU.
    """
    shared = {"lr": 0.001, "steps": o["steps"], "batch_size": o["batch_size"], "clip": o["clip"]}
    if o["stage"] == "invert":
        pivots: tuple[str, ...] = ()
        common: TrainSettings = InvertSettings(**shared, vectors=o["vectors"])
        subject = {key: o[key] for key in ("token", "initializer")}
        subject["images"] = str(_folder(o["images"]))
    else:
        if not o["pivot"]:
            raise click.UsageError("stage finetune needs --pivot, the run id of an inversion")
        pivots = parse_pivots(o["pivot"])
        common = FinetuneSettings(**shared, pivot=pivots[0], rank=o["rank"], alpha=o["alpha"])
        subject = {"images": ""}
    lrs, seeds = parse_learning_rates(o["lrs"]), parse_seeds(o["seeds"])
    vary: tuple[str, Sequence[float | str]] = parse_vary(o["vary"], type(common))
    if len(pivots) > 1:
        if o["vary"]:
            raise click.UsageError("several pivots and --vary: sweep one of them at a time")
        vary = ("pivot", pivots)
    members = tuple(experiments(lrs, seeds, vary, common))
    from pti_pipeline.studies.packs import Pack
    from pti_pipeline.studies.sweep import Executor, sweep

    whole = Pack(
        o["stage"], _place(o), subject, members, o["sample_every"], o["study"], varied=vary[0]
    )
    run = sweep(whole, Executor(o["executor"], o["ray_address"]))
    click.echo(f"Sweep in run {run}. Next:  pti evaluate --run {run}  then  pti select --run {run}")


@main.command(hidden=True)
def pack() -> None:
    """Train the pack of a sweep that is written, as JSON, on the standard input."""
    from pti_pipeline.studies.packs import Pack, train

    train(Pack.from_json(sys.stdin.read()))


@main.command()
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

    run = evaluate(_place(o), o["run"], o["samples"], o["edit_seeds"], how, o["study"])
    click.echo(f"Evaluated in run {run}.")


@main.command()
@click.option("--run", required=True, help="Run id of an evaluated sweep.")
@study
def select(**o: Any) -> None:
    """Choose the knee (of inversions) or the limit (of tunings) from a sweep's runs."""
    from pti_pipeline.steps.select import select

    chosen, choice = select(o["run"], o["study"])
    click.echo(f"Chosen: {chosen.name} ({chosen.id}): {choice.reason}.")


@main.command()
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


@main.command()
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
        _place(o), o["model"], o["prompt"], o["count"], o["seed"], how, Path(o["output"])
    )
    click.echo(f"{len(files) - 1} pictures, side by side in {files[-1]}.")


def _place(o: dict[str, Any]) -> BaseSettings:
    return BaseSettings(o["base"], o["device"], o["precision"])


def _training(o: dict[str, Any]) -> dict[str, Any]:
    return {key: o[key] for key in ("steps", "batch_size", "seed", "clip")}


def _folder(text: str) -> Path:
    """Resolve a folder, looking for the project's own examples also from elsewhere."""
    path = Path(text)
    beside = Path(__file__).parents[2] / text
    return beside if not path.exists() and beside.is_dir() else path


def _one(rates: tuple[float, ...]) -> tuple[float, ...]:
    if len(rates) != 1:
        raise click.UsageError("--lr takes one learning rate; use pti sweep --lrs for several")
    return rates


def _store() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
