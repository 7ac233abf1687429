"""Sentences of the report: the choice, what it leaves open, and why each run is not the one."""

from __future__ import annotations

import math
import re

from pti_pipeline.leak import MARGIN, SIGNIFICANT
from pti_pipeline.report.numerals import number
from pti_pipeline.report.study import REGULARIZED, Stage, Study, Trained
from pti_pipeline.settings import STEPS

ENOUGH = 1024
"""Samples that such a bound takes, about."""

NAMES = {"invert": "pivot", "finetune": "LoRA", REGULARIZED: "regularized LoRA"}
TITLES = {
    "invert": "The pivot: inversion",
    "finetune": "The LoRA: fine-tuning",
    REGULARIZED: "The LoRA again: fine-tuning with a regularizer",
}


def filled(study: Study, prompt: str) -> str:
    """Put the token into a prompt."""
    return prompt.replace("{}", study.token)


def lead(study: Study) -> str:
    """Tell the choice in one sentence, and why it is this tuning if there were two."""
    parts = []
    for stage in (study.invert, study.final):
        run, what = stage.chosen, NAMES[stage.key]
        if run is None:
            parts.append(f"no {what}")
        else:
            clause = _first_clause(stage.reason)
            why = f" \u2014 {clause} \u2014" if clause else ""
            parts.append(f"the {what} at distance {number(run.distance)} (lr {run.lr}){why}")
    chosen = "Chosen: " + " and ".join(parts)
    if study.model:
        where = f"models:/{study.model}@{study.alias}, version {study.version}"
        why = f" Of the two tunings: {study.preference}." if study.preference else ""
        return f"{chosen} registered as {where}.{why}"
    return chosen.removesuffix(" \u2014") + "; nothing is registered."


def _first_clause(reason: str) -> str:
    """Keep what decided, without what is said in brackets."""
    while (shorter := re.sub(r" \([^()]*\)", "", reason)) != reason:
        reason = shorter
    return re.split(r"[;:]", reason)[0].strip()


def open_questions(study: Study) -> list[str]:
    """What the study does not certify, one sentence each."""
    found = []
    if study.status != "FINISHED":
        found.append(f"The study's run has status {study.status.lower()}: parts may be missing.")
    for stage in study.stages:
        found += _open(stage)
    steps, seeds = study.settings.get("steps", ""), study.settings.get("seeds", "")
    if steps.isdigit() and int(steps) != STEPS:
        found.append(f"Trainings of {steps} steps, where {STEPS} are usual: distances are shorter.")
    if seeds and "," not in seeds:
        found.append("One seed a learning rate: how much a choice varies over seeds is not known.")
    return found


def _open(stage: Stage) -> list[str]:
    what, run = NAMES[stage.key], stage.chosen
    if not stage.runs:
        return [f"There is no sweep of the {what}: the study ended before it."]
    if run is None:
        return [f"No {what} was chosen."]
    if not run.measured:
        return [f"The {what} was not evaluated."]
    auc = f"leak/{stage.against}_auc"
    found = [f"The {what}: {stage.reason}."] if stage.target == "chosen" else []
    if not math.isfinite(run.value(auc)):
        found.append(
            f"Leak, editability and diversity of the {what} are unknown: "
            "no reader for this base model."
        )
    elif not run.value(f"{auc}_high") < MARGIN:
        found.append(
            f"The {what} is not certified free of leak against the {stage.reference}: its AUC may "
            f"be as high as {number(run.value(f'{auc}_high'))}, certified is below {MARGIN}, which "
            f"takes about {ENOUGH} samples."
        )
    if run.value(f"leak/{stage.against}_p") < SIGNIFICANT:
        found.append(f"The {what} leaks: p = {number(run.value(f'leak/{stage.against}_p'))}.")
    return found


def verdict(stage: Stage, run: Trained) -> str:
    """Say whether a run was chosen and, if not, what speaks against it."""
    if run.id == stage.choice:
        return "chosen" if stage.target == "chosen" else f"chosen: the {stage.target}"
    if run.state != "finished":
        return run.trouble or run.state
    if not run.measured:
        return "not evaluated"
    found = []
    if run.value(f"leak/{stage.against}_p") < SIGNIFICANT:
        found.append(f"leak detected, p = {number(run.value(f'leak/{stage.against}_p'))}")
    if run.value("editability/relative") < 1:
        found.append(f"keeps {run.value('editability/relative'):.0%} of editability")
    if stage.chosen is not None:
        nearer = run.distance < stage.chosen.distance
        gain = run.value(stage.reconstruction) - stage.chosen.value(stage.reconstruction)
        where = "nearer" if nearer else "farther"
        found.insert(0, f"{where}, reconstruction {gain:+.3f}".replace("-", "\u2212"))
    return "; ".join(found)
