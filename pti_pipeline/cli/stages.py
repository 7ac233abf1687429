"""The commands that train: ``pti invert``, ``finetune`` and ``sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pti_pipeline.cli.adapting import adaptation_settings, adapting
from pti_pipeline.cli.objective import objective, objective_settings
from pti_pipeline.cli.optimizing import decaying, keeping_norm, optimizer_settings, optimizing
from pti_pipeline.cli.options import (
    SEED,
    base_settings,
    executing,
    find_folder,
    option,
    place,
    regularizer_settings,
    regularizing,
    resuming,
    stopping,
    study,
    subject,
    training,
    whole,
)
from pti_pipeline.cli.watching import watch_settings, watching
from pti_pipeline.settings import FinetuneSettings, InvertSettings, TrainSettings
from pti_pipeline.values import (
    experiments,
    parse_learning_rates,
    parse_pivots,
    parse_seeds,
    parse_vary,
)


@click.command()
@subject
@option("lr", 0.005, "Learning rate.", type=str)
@training
@objective
@stopping
@optimizing
@watching
@option("vectors", 1, "Learned vectors of the token.", type=whole("vectors", 1))
@keeping_norm
@option("seed", 0, "Of every draw.", type=SEED)
@place
@resuming
@study
def invert(**o: Any) -> None:
    """Learn the embedding of a placeholder token: the pivot.

    The base model stays frozen; the run holds the learned embedding, sample grids by step, and the
    distance from the initializer token at every step.
    """
    (lr,) = _one(parse_learning_rates(str(o["lr"])))
    own = {key: o[key] for key in ("seed", "vectors", "norm")}
    settings = InvertSettings(**_training(o), lr=lr, **own)
    from pti_pipeline.steps.attempts import Within
    from pti_pipeline.steps.invert import run_inversions
    from pti_pipeline.steps.prepared import prepare_inversion
    from pti_pipeline.tracking.find import check_study

    check_study(o["study"])
    where, folder = base_settings(o), find_folder(o["images"])
    ready = prepare_inversion(where, folder, o["token"], o["initializer"], [settings])
    last = watch_settings(o), Within(o["study"]), o["resume"]
    (run,) = run_inversions(ready, [settings], *last)
    click.echo(f"Pivot in run {run}. Next:  pti finetune --pivot {run}")


@click.command()
@click.option(
    "--pivot", required=True, help="Run id of an inversion, or of a sweep that chose one."
)
@option("images", "", "Folder of pictures; the inversion's own by default.")
@option("lr", 0.0003, "Learning rate.", type=str)
@training
@objective
@stopping
@optimizing
@watching
@option("rank", 4, "Rank of the LoRA.", type=whole("rank", 1))
@option("alpha", 4.0, "The LoRA is scaled by alpha / rank.", type=float)
@adapting
@decaying
@regularizing
@option("seed", 0, "Of every draw.", type=SEED)
@place
@resuming
@study
def finetune(**o: Any) -> None:
    """Train a LoRA lightly around a frozen pivot."""
    (lr,) = _one(parse_learning_rates(str(o["lr"])))
    own = {key: o[key] for key in ("pivot", "rank", "alpha", "weight_decay", "seed")}
    own |= adaptation_settings(o) | regularizer_settings(o)
    settings = FinetuneSettings(**_training(o), lr=lr, **own)
    from pti_pipeline.steps.attempts import Within
    from pti_pipeline.steps.finetune import run_finetunings
    from pti_pipeline.steps.prepared import prepare_finetuning
    from pti_pipeline.tracking.find import check_study

    check_study(o["study"])
    images = find_folder(o["images"]) if o["images"] else None
    ready = prepare_finetuning(base_settings(o), [settings], images)
    last = watch_settings(o), Within(o["study"]), o["resume"]
    (run,) = run_finetunings(ready, [settings], *last)
    click.echo(f"LoRA in run {run}. Next:  pti evaluate --run {run}  or  pti register --run {run}")


@click.command()
@option("stage", "invert", "What is swept.", type=click.Choice(["invert", "finetune"]))
@subject
@option("pivot", "", "Run ids of inversions, separated by commas; for stage finetune.")
@option("lrs", "0.0003,0.001,0.003,0.01", "Learning rates, separated by commas.")
@option("seeds", "0", "Seeds, separated by commas.")
@option("vary", "", "A setting and its values, e.g. rank:4,8 or batch_size:1,4.")
@training
@objective
@stopping
@optimizing
@watching
@option("vectors", 1, "Learned vectors of the token; for stage invert.", type=whole("vectors", 1))
@keeping_norm
@option("rank", 4, "Rank of the LoRA; for stage finetune.", type=whole("rank", 1))
@option("alpha", 4.0, "The LoRA is scaled by alpha / rank; for stage finetune.", type=float)
@adapting
@decaying
@regularizing
@executing
@place
@resuming
@study
def sweep(**o: Any) -> None:
    """Train one stage at every learning rate, seed and value of a setting, one run each.

    Experiments of equal shapes share one pass through the frozen base; packs of them run side by
    side, one for each core or GPU.
    """
    shared = {**_training(o), "lr": 0.001}
    if o["stage"] == "invert":
        pivots: tuple[str, ...] = ()
        common: TrainSettings = InvertSettings(**shared, vectors=o["vectors"], norm=o["norm"])
        subject = {key: o[key] for key in ("token", "initializer")}
        subject["images"] = str(find_folder(o["images"]))
    else:
        if not o["pivot"]:
            raise click.UsageError("stage finetune needs --pivot, the run id of an inversion")
        pivots = parse_pivots(o["pivot"])
        own = {key: o[key] for key in ("rank", "alpha", "weight_decay")}
        own |= adaptation_settings(o) | regularizer_settings(o)
        common = FinetuneSettings(**shared, pivot=pivots[0], **own)
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

    where, last = base_settings(o), (watch_settings(o), o["study"])
    whole = Pack(o["stage"], where, subject, members, *last, varied=vary[0])
    run = sweep(whole, Executor(o["executor"], o["ray_address"]), o["resume"])
    click.echo(f"Sweep in run {run}. Next:  pti evaluate --run {run}  then  pti select --run {run}")


def _training(o: dict[str, Any]) -> dict[str, Any]:
    names = ("steps", "batch_size", "clip", "until_distance", "at_distance", "stop_at_leak")
    return {key: o[key] for key in names} | objective_settings(o) | optimizer_settings(o)


def _one(rates: tuple[float, ...]) -> tuple[float, ...]:
    if len(rates) != 1:
        raise click.UsageError("--lr takes one learning rate; use pti sweep --lrs for several")
    return rates
