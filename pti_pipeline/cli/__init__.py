"""The command ``pti``: one subcommand for each entry point of the MLproject file.

Whatever takes long to import is imported inside the commands: ``--help`` and usage errors are
instant.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

import pti_pipeline.environment
import pti_pipeline.quiet  # noqa: F401
from pti_pipeline import __version__
from pti_pipeline.cli.adapting import adaptation_settings, adapting
from pti_pipeline.cli.claims import claims
from pti_pipeline.cli.export import export
from pti_pipeline.cli.families import families
from pti_pipeline.cli.group import Group
from pti_pipeline.cli.memory import memory
from pti_pipeline.cli.objective import objective, objective_settings
from pti_pipeline.cli.options import (
    EVERY,
    comparing,
    executing,
    find_folder,
    option,
    place,
    resuming,
    subject,
    training,
    whole,
)
from pti_pipeline.cli.results import evaluate, generate, register, report, select
from pti_pipeline.cli.stages import finetune, invert, sweep
from pti_pipeline.cli.store import sync
from pti_pipeline.cli.ui import ui
from pti_pipeline.cli.watching import watching
from pti_pipeline.cli.world import world
from pti_pipeline.settings import STEPS, FinetuneSettings
from pti_pipeline.values import parse_learning_rates, parse_seeds

SEEDS = "0,1,2"
"""Of a study, by default: how much a choice varies over seeds is part of the answer."""
REG_WEIGHT = 0.3
"""Of locality, as the regularizers' comparison chose it (docs/explanation/claims.md)."""


@click.group(cls=Group, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="pti")
def main() -> None:
    """Personalise a text-to-image diffusion model by pivotal tuning.

    INVERT a character into a token (the pivot), FINETUNE a LoRA lightly around it, EVALUATE what
    was gained and lost against the distance travelled, and REGISTER the one chosen. MAIN does it
    all. Runs are kept in ./mlflow.db, or where MLFLOW_TRACKING_URI says.
    """


@main.command("main")
@subject
@option("inversion-lrs", "0.0003,0.001,0.003,0.01", "Learning rates of the inversion's sweep.")
@option("tuning-lrs", "0.0003,0.001,0.003,0.01", "Learning rates of the tuning's sweep.")
@option(
    "regularized-lrs",
    "0.0003,0.001,0.003,0.01",
    "Learning rates of the tuning's second sweep, with the regularizer.",
)
@option(
    "regularizer",
    "locality",
    "Of the second sweep, see pti finetune --help; none: there is no second one.",
)
@option("reg-weight", REG_WEIGHT, "Weight of the regularizer's loss.", type=click.FloatRange(0))
@option("reg-every", 1, EVERY, type=whole("reg_every", 1))
@option("kappa", 0.5, "Radius of locality, as in pti finetune.", type=float)
@option(
    "curve",
    "sweep",
    "Of the tuning: sweep, one training a rate; or one-run, checkpoints of the middle rate.",
    type=click.Choice(["sweep", "one-run"]),
)
@training
@objective
@watching
@option("vectors", 1, "Learned vectors of the token.", type=whole("vectors", 1))
@option("rank", 4, "Rank of the LoRA.", type=whole("rank", 1))
@option("alpha", 4.0, "The LoRA is scaled by alpha / rank.", type=float)
@adapting
@option("seeds", SEEDS, "Seeds of each sweep.")
@option(
    "samples", 64, "Samples of each experiment, for appearance and leak.", type=whole("samples", 8)
)
@option("edit-seeds", 4, "Samples of each edit prompt.", type=whole("edit_seeds", 1))
@comparing
@option("name", "", "Of the registered model; the token's letters by default.")
@option("alias", "champion", "Alias that the new version gets; candidate if it leaks or collapsed.")
@executing
@place
@resuming
def main_command(**options: Any) -> None:
    """Run the whole study: all sweeps, all choices, the registration."""
    parse_learning_rates(options["inversion_lrs"])
    parse_learning_rates(options["tuning_lrs"])
    parse_learning_rates(options["regularized_lrs"])
    parse_seeds(options["seeds"])
    names = ("steps", "batch_size", "clip", "rank", "alpha", "reg_weight", "reg_every", "kappa")
    options |= objective_settings(options)
    common = adaptation_settings(options) | objective_settings(options)
    FinetuneSettings(**{name: options[name] for name in names}, **common)
    from pti_pipeline.studies.processes import warm_up

    warm_up()  # the server of its steps imports what this process does, at the same time
    from pti_pipeline.studies.main import main
    from pti_pipeline.studies.plan import Plan

    usual, count = len(parse_seeds(SEEDS)), len(parse_seeds(options["seeds"]))
    if options["steps"] != STEPS:
        click.echo(f"Trains {options['steps']} steps where the default is {STEPS}.")
    if count < usual:
        told = f"{count} seed{'s'[: count > 1]}"
        click.echo(f"Takes {told} where the default is {usual}: choices have no good interval.")
    options["images"], resume = str(find_folder(options["images"])), options.pop("resume")
    click.echo("\n" + main(Plan(**options), resume))
    click.echo(f"Compare:  {_command()} ui")


for command in (invert, finetune, sweep, evaluate, select, register, report, generate, export):
    main.add_command(command)
for command in (ui, sync, families, memory, claims, world):
    main.add_command(command)


def _command() -> str:
    """How ``pti`` is called from where this study was called, with its store if it is another."""
    installed = Path(sys.executable).with_name("pti")
    program = str(installed) if installed.is_file() else f"{sys.executable} -m pti_pipeline"
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    usual = not uri or Path(uri.removeprefix("sqlite:///")).resolve() == Path("mlflow.db").resolve()
    return program if usual else f"MLFLOW_TRACKING_URI={uri} {program}"
