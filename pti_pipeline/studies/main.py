"""The whole study: sweep the inversion, choose the pivot, sweep the tuning, choose, register.

The tuning is swept twice, without a regularizer and with one at larger learning rates; of the two
chosen LoRAs the better is registered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from pti_pipeline.adaptation import adaptation_of
from pti_pipeline.choosing.rivals import Rival, prefer
from pti_pipeline.errors import DivergedError, PtiError
from pti_pipeline.objective import objective_of
from pti_pipeline.settings import BaseSettings
from pti_pipeline.steps.attempts import ALONE, AUTO, Facts, attempt
from pti_pipeline.steps.gate import find_candidate, refusal
from pti_pipeline.steps.prepared import Inversion, facts
from pti_pipeline.steps.report import report
from pti_pipeline.steps.resuming import begin, forget
from pti_pipeline.studies.plan import (
    Plan,
    check,
    cost,
    light_options,
    regularized_options,
    unmeasured,
    watch_of,
)
from pti_pipeline.studies.processes import run_command
from pti_pipeline.tracking.dataset import log_prompts
from pti_pipeline.tracking.find import Found, find_runs, get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.views import write_views
from pti_pipeline.values import parse_learning_rates

CANDIDATE = "candidate"
"""Alias of what had to be forced into the registry."""


@dataclass(frozen=True)
class Stage:
    """A sweep that was measured and chosen from, and the run chosen."""

    sweep: Found
    chosen: Found


class StepFailed(PtiError):
    """A step's process ended with an error, which it has told."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__("E903", f"{step} failed", "see its message above")
        self.exit_code = code


def main(plan: Plan, resume: str = AUTO) -> str:
    """Run every step as its own process; return the closing table.

    A study that was interrupted goes on: its steps that are finished are not done again.

    Raises
    ------
    StepFailed
        With the failed step's exit code.
    """
    clock = time.monotonic()
    ready = check(plan)
    found = attempt([_facts(plan, ready)], resume)
    print("\n".join(filter(None, (cost(plan, ready), unmeasured(plan)))), flush=True)
    tags = {"pti.step": "main", **found.tags[0]}
    with open_run(f"study {plan.token}", asdict(plan), tags, earlier=found.earlier[0]) as run:
        begin(found, [run])
        if plan.preview:
            log_prompts(run, found.facts[0]["preview"])
        subject = {"token": plan.token, "initializer": plan.initializer, "vectors": plan.vectors}
        pivot = _stage(plan, run.id, "invert", {**subject, "lrs": plan.inversion_lrs})
        lora = {"pivot": pivot.chosen.id, "rank": plan.rank, "alpha": plan.alpha}
        lora |= adaptation_of(plan)
        light = _stage(plan, run.id, "finetune", {**lora, **light_options(plan)})
        stages = {"invert": pivot, "finetune": light}
        better = light
        if plan.regularizer != "none":
            held, other, why = _second(plan, run.id, light, lora)
            if held is not None:
                stages[plan.regularizer] = held
                better = held if other else light
            run.set_tags({"pti.preference": why})
        registered = register(plan, run.id, better.chosen.id)
        model, version = registered.tags["pti.model"], registered.tags["pti.version"]
        table = _table(stages, registered, time.monotonic() - clock)
        if registered.params["alias"] != plan.alias:
            table += f"\nBeware: {registered.tags['pti.gate']}. @{plan.alias} was not moved to it."
        if plan.regularizer != "none":
            table += f"\nOf the two tunings: {why}."
        run.log_text(table, "report.md")
        text = f"{better.chosen.name} is `models:/{model}@{plan.alias}`, version {version}."
        shown = table.replace("<", "&lt;")  # else the UI takes the token for HTML
        note = {"mlflow.note.content": f"{text}\n\n{shown}"}
        run.set_tags({**note, "pti.model": model, "pti.version": version})
        forget([run])
    write_views()
    # the run has ended: whatever happens to its report, the study stands
    return f"{table}\nReport:   {report(run.id)}"


def register(plan: Plan, study: str, chosen: str) -> Found:
    """Register the chosen run; return the run of that step.

    What the gate would refuse is what an hour of work gave, so it is kept, but forced, and under
    the alias ``candidate``: nobody who asks for the usual one is to meet it unawares.
    """
    refused = refusal(find_candidate(chosen)) is not None
    alias, force = (CANDIDATE, "yes") if refused else (plan.alias, "no")
    wanted = {"study": study, "step": "register", "registered": chosen}
    if not any(run.status == "FINISHED" for run in find_runs(**wanted)):
        own = {"run": chosen, "name": plan.name, "alias": alias, "force": force}
        _step("register", study, own)
    return [run for run in find_runs(**wanted) if run.status == "FINISHED"][-1]


def _stage(plan: Plan, study: str, stage: str, own: Mapping[str, object]) -> Stage:
    """Sweep a stage, measure its runs and choose among them."""
    place = {f.name: getattr(plan, f.name) for f in fields(BaseSettings)}
    training = {
        "images": plan.images,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "clip": plan.clip,
        **objective_of(plan),
        "seeds": plan.seeds,
        "sample_every": plan.sample_every,
        "preview": plan.preview,
        "preview_seeds": plan.preview_seeds,
        "probes": plan.probes,
        "executor": plan.executor,
        "ray_address": plan.ray_address,
    }
    _step("sweep", study, {"stage": stage, **place, **training, **own})
    sweep = _swept(study, stage, own)
    names = ("samples", "edit_seeds", "clip_model", "dino_model")
    measuring = {name: getattr(plan, name) for name in names}
    _step("evaluate", study, {"run": sweep.id, **place, **measuring})
    if "pti.choice" not in sweep.tags:
        _step("select", study, {"run": sweep.id})
    sweep = get_run(sweep.id)
    return Stage(sweep, get_run(sweep.tags["pti.choice"]))


def _swept(study: str, stage: str, own: Mapping[str, object]) -> Found:
    """Find the study's sweep of a stage at some learning rates, with a regularizer."""

    def axes(regularizer: object, rates: object) -> tuple[str, tuple[float, ...]]:
        return str(regularizer), parse_learning_rates(str(rates))

    wanted = axes(own.get("regularizer", "none"), own["lrs"])
    found = find_runs(study=study, step="sweep", stage=stage)
    known = [axes(s.params.get("regularizer", "none"), s.params["lrs"]) for s in found]
    return [s for s, each in zip(found, known, strict=True) if each == wanted][-1]


def _facts(plan: Plan, ready: Inversion) -> Facts:
    """All that decides what a study gives."""
    where = ("base", "device", "images", "executor", "ray_address", "offload")
    own = {name: value for name, value in asdict(plan).items() if name not in where}
    return {**own, **facts(ready, watch_of(plan), ALONE), "step": "main"}


def _second(
    plan: Plan, study: str, light: Stage, lora: Mapping[str, object]
) -> tuple[Stage | None, bool, str]:
    """Sweep the tuning again, with the regularizer; whether it is the better one, and why.

    That everything diverges or collapses at its larger learning rates is an answer too.
    """
    try:
        held = _stage(plan, study, "finetune", {**lora, **regularized_options(plan)})
    except StepFailed as error:
        if error.exit_code != DivergedError.exit_code:
            raise
        return None, False, f"with {plan.regularizer} everything diverged or collapsed"
    usual, other = _rival(light, "no regularizer"), _rival(held, plan.regularizer)
    return held, *prefer(usual, other)


def _rival(stage: Stage, name: str) -> Rival:
    """What speaks for a tuning, as its sweep's evaluation and choice logged it."""
    metrics = stage.chosen.metrics
    appearance = metrics.get("reconstruction/appearance", math.nan)
    gain = metrics.get("reconstruction/bank_gain", math.nan)
    return Rival(
        name,
        metrics.get("distance/delta_norm", math.nan),
        appearance if math.isfinite(appearance) else gain,
        metrics.get("editability/relative", math.nan),
        stage.sweep.tags.get("pti.sound") != "no",
    )


def _step(step: str, study: str, options: Mapping[str, object]) -> None:
    """Run an entry point's command in a process of its own."""
    print(f"\n== {step} {options.get('stage', '')}".rstrip() + " ==", flush=True)
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    code = run_command([step, *words, f"--study={study}"])
    if code:
        raise StepFailed(step, code)


def _table(stages: dict[str, Stage], registered: Found, seconds: float) -> str:
    model = f"models:/{registered.tags['pti.model']}@{registered.params['alias']}"
    chosen = {name: stage.chosen for name, stage in stages.items()}
    columns = {
        "learning rate": "train/lr",
        "distance": "distance/delta_norm",
        "lr x steps": "distance/lr_x_steps",
        "bank gain": "reconstruction/bank_gain",
        "appearance": "reconstruction/appearance",
        "obedience": "editability/obedience",
        "editability": "editability/relative",
        "leak AUC": "leak/class_auc",
    }
    rows = [["", *chosen]]
    for label, key in columns.items():
        values = [run.metrics.get(key) for run in chosen.values()]
        rows.append([label, *("-" if v is None else f"{v:.4g}" for v in values)])
    lines = ["| " + " | ".join(f"{cell:<14}" for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(["-" * 16] * (1 + len(chosen))) + "|")
    token = chosen["invert"].tags["pti.token"]
    lines += [
        "",
        f"Registered as `{model}`, version {registered.tags['pti.version']}, "
        f"after {seconds / 60:.1f} minutes.",
        f"Draw it:  pti generate --model {model} --prompt 'a photo of {token} on the beach'",
    ]
    return "\n".join(lines)
