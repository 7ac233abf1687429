"""What a study will do, what that costs, and whether it can be done at all."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from pti_pipeline.adaptation import Adaptation, adaptation_of
from pti_pipeline.errors import UsageError
from pti_pipeline.estimate import Work, estimate, seconds_a_row
from pti_pipeline.evaluation import EDITS, PHOTO_EDITS
from pti_pipeline.headers import word_of
from pti_pipeline.objective import Objective, objective_of
from pti_pipeline.preview import USUAL, WatchSettings, read_watch
from pti_pipeline.readers import load_readers
from pti_pipeline.regularizers import find as find_regularizer
from pti_pipeline.settings import (
    BaseSettings,
    FinetuneSettings,
    InvertSettings,
    SampleSettings,
)
from pti_pipeline.steps.prepared import Inversion, prepare_inversion
from pti_pipeline.studies.local import workers
from pti_pipeline.targets import check_rank, chosen
from pti_pipeline.tracking.registry import check_names
from pti_pipeline.values import experiments, halved, parse_learning_rates, parse_seeds

CHECKPOINTS = 7
"""Places along one run's curve."""


@dataclass(frozen=True)
class Plan(Objective, Adaptation):
    """What a study does, in the words of the steps' own options."""

    images: str
    token: str
    initializer: str
    inversion_lrs: str
    tuning_lrs: str
    regularized_lrs: str
    regularizer: str
    reg_weight: float
    reg_every: int
    kappa: float
    curve: str
    steps: int
    batch_size: int
    clip: float
    vectors: int
    rank: int
    alpha: float
    seeds: str
    samples: int
    edit_seeds: int
    clip_model: str
    dino_model: str
    sample_every: int
    preview: str
    preview_seeds: str
    probes: int
    name: str
    alias: str
    executor: str
    ray_address: str
    base: str
    device: str
    precision: str
    offload: bool
    base_bits: int


def check(plan: Plan) -> Inversion:
    """Load what the study needs, and raise what would come to light only after its first sweeps.

    Raises
    ------
    UsageError, DataError, ModelError
    """
    watch_of(plan)
    find_regularizer(plan.regularizer)
    if plan.regularizer == "weight-ball":
        what = "the study's second sweep has no radius for weight-ball"
        raise UsageError("E232", what, "use another --regularizer, or pti sweep")
    shared = {name: getattr(plan, name) for name in ("steps", "batch_size", "clip")}
    shared |= objective_of(plan)
    inversion = InvertSettings(**shared, vectors=plan.vectors)
    names = ("rank", "alpha", "regularizer", "reg_weight", "reg_every", "kappa")
    own = {name: getattr(plan, name) for name in names} | adaptation_of(plan)
    common = FinetuneSettings(**shared, **own)
    for lrs in (plan.inversion_lrs, plan.tuning_lrs, plan.regularized_lrs):
        experiments(parse_learning_rates(lrs), parse_seeds(plan.seeds), ("", ()), common)
    check_names(plan.name or word_of(plan.token), plan.alias)
    where = BaseSettings(*(getattr(plan, f.name) for f in fields(BaseSettings)))
    words = plan.token, plan.initializer
    ready = prepare_inversion(where, Path(plan.images), *words, [inversion])
    base = ready.base
    check_rank(base.denoiser, plan.rank, chosen(base.denoiser, plan, base.feed_forward))
    load_readers(base, plan.initializer, plan.clip_model, plan.dino_model)
    return ready


def cost(plan: Plan, ready: Inversion) -> str:
    """Estimate a study: all sweeps, and the samples of their runs."""
    edits = EDITS if plan.base == "world" else PHOTO_EDITS if plan.clip_model else ()
    seeds = len(plan.seeds.split(","))
    pivots = len(plan.inversion_lrs.split(",")) * seeds
    places = CHECKPOINTS if plan.curve == "one-run" else len(plan.tuning_lrs.split(","))
    tuned = places * seeds
    held = len(plan.regularized_lrs.split(",")) * seeds if plan.regularizer != "none" else 0
    trainings = pivots + (seeds if plan.curve == "one-run" else tuned) + held
    grids = -(-plan.steps // plan.sample_every) if plan.sample_every else 1
    work = Work(
        trainings=trainings,
        regularized=-(-held // plan.reg_every),
        steps=plan.steps,
        batch_size=plan.batch_size,
        pictures=len(ready.subject.images),
        probes=min(plan.probes, plan.steps),
        measured=pivots + tuned + held + 1,  # the class word
        samples=plan.samples + plan.edit_seeds * len(edits),
        shown=(pivots + tuned + held) * (grids * watch_of(plan).grid + USUAL.grid),
    )
    return estimate(work, seconds_a_row(ready.base), SampleSettings(), workers())


def unmeasured(plan: Plan) -> str:
    """Say what no reader of this base measures, and what would; empty if editability is."""
    if plan.base == "world" or plan.clip_model:
        return ""
    return (
        "Editability will not be measured, nor chosen by: it takes a CLIP model with safetensors, "
        "--clip-model=<folder or hub id>."
    )


def watch_of(plan: Plan) -> WatchSettings:
    """What is shown of a study's trainings."""
    return read_watch(plan.sample_every, plan.probes, plan.preview, plan.preview_seeds)


def light_options(plan: Plan) -> dict[str, object]:
    """Options of the tuning's first sweep: its learning rates, or one run's checkpoints."""
    if plan.curve == "sweep":
        return {"lrs": plan.tuning_lrs}
    rates = sorted(parse_learning_rates(plan.tuning_lrs))
    places = halved(plan.steps, CHECKPOINTS)
    return {"lrs": rates[(len(rates) - 1) // 2], "vary": f"steps:{','.join(map(str, places))}"}


def regularized_options(plan: Plan) -> dict[str, object]:
    """Options of the tuning's second sweep."""
    names = ("regularizer", "reg_weight", "reg_every", "kappa")
    return {"lrs": plan.regularized_lrs} | {name: getattr(plan, name) for name in names}
