"""Matrix of samples: learning rates in order of distance, by prompt."""

from __future__ import annotations

from pti_pipeline.report.markup import Html, el
from pti_pipeline.report.numerals import number
from pti_pipeline.report.pictures import block, data_uri, rows
from pti_pipeline.report.study import Stage, Study, Trained
from pti_pipeline.report.words import TITLES, filled

CELL = 192
"""Pixels of a cell's width, at most."""


def matrix_section(study: Study) -> Html:
    """Last samples of every run: learning rates in order of distance, by prompt."""
    tables = [_matrix(study, stage) for stage in study.stages]
    return el(
        "section",
        el("h2", "Samples by learning rate and prompt"),
        el(
            "p",
            "Four seeds each, the same in every row; rows in order of distance.",
            class_="note",
        ),
        el("div", *tables, class_="matrices"),
        id="matrix",
    )


def _matrix(study: Study, stage: Stage) -> Html:
    drawn = [run for run in stage.runs if run.samples]
    if not drawn:
        text = f"{TITLES[stage.key]}: no sample grids were logged."
        return el("p", text, class_="absent")
    heads = [el("th", filled(study, prompt), scope="col") for prompt in study.prompts]
    body = []
    for run in drawn:
        chosen = run.id == stage.choice
        note = stage.target if chosen else run.state if run.state != "finished" else ""
        label = [el("b", stage.label(run)), " ", el("span", f"distance {number(run.distance)}")]
        label += [" ", el("em", note)] if note else []
        cells = [
            el("td", el("img", src=data_uri(block(part), CELL), alt=_alt(study, run, prompt)))
            for part, prompt in zip(
                rows(run.samples[-1].grid, len(study.prompts)), study.prompts, strict=True
            )
        ]
        row = el("th", *label, scope="row")
        body.append(el("tr", row, *cells, class_="chosen" if chosen else None))
    table = el(
        "table",
        el("thead", el("tr", el("td", ""), *heads)),
        el("tbody", *body),
        class_="matrix",
    )
    return el("div", el("h3", TITLES[stage.key]), table)


def _alt(study: Study, run: Trained, prompt: str) -> str:
    return f"{filled(study, prompt)} at learning rate {run.lr}"
