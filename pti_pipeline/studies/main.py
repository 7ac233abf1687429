"""The whole study: sweep the inversion, choose the pivot, sweep the tuning, choose, register."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pti_pipeline.errors import PtiError
from pti_pipeline.estimate import Work, estimate, seconds_a_row
from pti_pipeline.evaluation import EDITS
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.steps.invert import prepare_inversion
from pti_pipeline.steps.report import report
from pti_pipeline.studies.executors import workers
from pti_pipeline.studies.processes import run_command
from pti_pipeline.tracking.find import Found, find_runs, get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.values import halved, parse_learning_rates

CHECKPOINTS = 7
"""Places along one run's curve."""


@dataclass(frozen=True)
class Plan:
    """What a study does, in the words of the steps' own options."""

    images: str
    token: str
    initializer: str
    inversion_lrs: str
    tuning_lrs: str
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
    sample_every: int
    probes: int
    name: str
    alias: str
    executor: str
    ray_address: str
    base: str
    device: str
    precision: str


class StepFailed(PtiError):
    """A step's process ended with an error, which it has told."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__("E903", f"{step} failed", "see its message above")
        self.exit_code = code


def main(plan: Plan) -> str:
    """Run every step as its own process; return the closing table.

    Raises
    ------
    StepFailed
        With the failed step's exit code.
    """
    clock = time.monotonic()
    where = BaseSettings(plan.base, plan.device, plan.precision)
    print(_cost(plan, where), flush=True)
    with open_run(f"study {plan.token}", asdict(plan), {"pti.step": "main"}) as run:
        subject = {"token": plan.token, "initializer": plan.initializer, "vectors": plan.vectors}
        pivot = _stage(plan, run.id, "invert", {**subject, "lrs": plan.inversion_lrs})
        lora = {"pivot": pivot.id, "rank": plan.rank, "alpha": plan.alpha}
        tuned = _stage(plan, run.id, "finetune", {**lora, **_curve(plan)})
        chosen = {"invert": pivot, "finetune": tuned}
        _step("register", run.id, {"run": tuned.id, "name": plan.name, "alias": plan.alias})
        registered = find_runs(study=run.id, step="register")[-1]
        model, version = registered.tags["pti.model"], registered.tags["pti.version"]
        table = _table(chosen, model, version, plan.alias, time.monotonic() - clock)
        run.log_text(table, "report.md")
        run.set_tags({"mlflow.note.content": table, "pti.model": model, "pti.version": version})
    # the run has ended: whatever happens to its report, the study stands
    return f"{table}\nReport:   {report(run.id)}"


def _cost(plan: Plan, where: BaseSettings) -> str:
    """Check what the study needs, and estimate it: both sweeps, and the samples of their runs."""
    ready = prepare_inversion(where, Path(plan.images), plan.token, plan.initializer)
    edits = len(EDITS) if plan.base == "world" else 0
    seeds = len(plan.seeds.split(","))
    pivots = len(plan.inversion_lrs.split(",")) * seeds
    places = CHECKPOINTS if plan.curve == "one-run" else len(plan.tuning_lrs.split(","))
    tuned = places * seeds
    trainings = pivots + (seeds if plan.curve == "one-run" else tuned)
    grids = -(-plan.steps // plan.sample_every) if plan.sample_every else 1
    work = Work(
        trainings=trainings,
        steps=plan.steps,
        batch_size=plan.batch_size,
        pictures=len(ready.subject.images),
        probes=min(plan.probes, plan.steps),
        measured=pivots + tuned + 3,  # the class word twice, and the pivot
        samples=plan.samples + plan.edit_seeds * edits,
        grids=(pivots + tuned) * (grids + 1),  # at evaluation too
    )
    return estimate(work, seconds_a_row(ready.base), SampleSettings(), workers())


def _stage(plan: Plan, study: str, stage: str, own: Mapping[str, object]) -> Found:
    """Sweep a stage, measure its runs and choose among them; return the chosen run."""
    place = {"base": plan.base, "device": plan.device, "precision": plan.precision}
    training = {
        "images": plan.images,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "clip": plan.clip,
        "seeds": plan.seeds,
        "sample_every": plan.sample_every,
        "probes": plan.probes,
        "executor": plan.executor,
        "ray_address": plan.ray_address,
    }
    _step("sweep", study, {"stage": stage, **place, **training, **own})
    sweep = find_runs(study=study, step="sweep", stage=stage)[-1]
    samples = {"samples": plan.samples, "edit_seeds": plan.edit_seeds}
    _step("evaluate", study, {"run": sweep.id, **place, **samples})
    _step("select", study, {"run": sweep.id})
    return get_run(get_run(sweep.id).tags["pti.choice"])


def _curve(plan: Plan) -> dict[str, object]:
    """Options of the tuning's sweep: its learning rates, or one run's checkpoints."""
    if plan.curve == "sweep":
        return {"lrs": plan.tuning_lrs}
    rates = sorted(parse_learning_rates(plan.tuning_lrs))
    places = halved(plan.steps, CHECKPOINTS)
    return {"lrs": rates[(len(rates) - 1) // 2], "vary": f"steps:{','.join(map(str, places))}"}


def _step(step: str, study: str, options: dict[str, object]) -> None:
    """Run an entry point's command in a process of its own."""
    print(f"\n== {step} {options.get('stage', '')}".rstrip() + " ==", flush=True)
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    code = run_command([step, *words, f"--study={study}"])
    if code:
        raise StepFailed(step, code)


def _table(chosen: dict[str, Found], model: str, version: str, alias: str, seconds: float) -> str:
    columns = {
        "learning rate": "train/lr",
        "distance": "distance/delta_norm",
        "lr x steps": "distance/lr_x_steps",
        "bank gain": "reconstruction/bank_gain",
        "appearance": "reconstruction/appearance",
        "obedience": "editability/obedience",
        "leak AUC": "leak/class_auc",
    }
    rows = [["", *(run.name.split()[0] for run in chosen.values())]]
    for label, key in columns.items():
        values = [run.metrics.get(key) for run in chosen.values()]
        rows.append([label, *("-" if v is None else f"{v:.4g}" for v in values)])
    lines = ["| " + " | ".join(f"{cell:<14}" for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(["-" * 16] * 3) + "|")
    token = chosen["invert"].tags["pti.token"]
    lines += [
        "",
        f"Registered as `models:/{model}@{alias}`, version {version}, "
        f"after {seconds / 60:.1f} minutes.",
        f"Draw it:  pti generate --model models:/{model}@{alias} "
        f"--prompt 'a photo of {token} on the beach'",
    ]
    return "\n".join(lines)
