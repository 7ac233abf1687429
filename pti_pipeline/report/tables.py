"""Table of runs, and the facts that a reproduction needs."""

from __future__ import annotations

import shlex

from pti_pipeline.report.markup import Html, el, join
from pti_pipeline.report.numerals import between, number, share
from pti_pipeline.report.study import Stage, Study, Trained
from pti_pipeline.report.words import TITLES, verdict


def runs_section(study: Study) -> Html:
    """Every run with its numbers, its outcome, and what speaks for or against it."""
    return el(
        "section",
        el("h2", "Runs"),
        *(_runs(stage) for stage in study.stages),
        id="runs",
    )


def facts_section(study: Study) -> Html:
    """Whatever it takes to run the study again."""
    words = [f"--{key.replace('_', '-')}={value}" for key, value in study.settings.items() if value]
    command = [shlex.quote(word) for word in ("pti", "main", *words)]
    told = join(*(join(el("span", word), " ") for word in command))
    pairs = [
        part for fact in study.facts.items() for part in (el("dt", fact[0]), el("dd", fact[1]))
    ]
    return el(
        "section",
        el("h2", "To do it again"),
        el("pre", el("code", told), tabindex="0"),
        el("dl", *pairs),
        id="facts",
    )


def _runs(stage: Stage) -> Html:
    if not stage.runs:
        return el("p", f"{TITLES[stage.key]}: no runs.", class_="absent")
    function = any("distance/function" in run.metrics for run in stage.runs)
    heads = ["run", "lr", "steps", "lr \u00d7 steps", "distance"]
    heads += ["in function space"] if function else []
    heads += ["reconstruction", "editability", "leak (95 %)", "outcome", "choice"]
    body = [
        el(
            "tr",
            *(
                el("td", cell, data_label=label)
                for label, cell in zip(heads, _cells(stage, run, function), strict=True)
            ),
            class_="chosen" if run.id == stage.choice else None,
        )
        for run in stage.runs
    ]
    table = el(
        "table",
        el("thead", el("tr", *(el("th", label, scope="col") for label in heads))),
        el("tbody", *body),
        class_="runs",
    )
    return join(el("h3", TITLES[stage.key]), table)


def _cells(stage: Stage, run: Trained, function: bool) -> list[str]:
    auc = f"leak/{stage.against}_auc"
    low, high = run.value(f"{auc}_low"), run.value(f"{auc}_high")
    return [
        _name(run),
        run.lr,
        run.steps,
        number(run.value("distance/lr_x_steps")),
        number(run.distance),
        *([number(run.value("distance/function"))] if function else []),
        share(run.value(stage.reconstruction)),
        share(run.value("editability/relative")),
        share(run.value(auc)) + between(low, high, ".3f"),
        run.state,
        verdict(stage, run),
    ]


def _name(run: Trained) -> Html:
    """Link a run to its page in the MLflow UI, or tell its id."""
    if run.link:
        return el("a", run.name, href=run.link)
    return el("span", run.name, " ", el("code", run.id[:8], title=run.id))
