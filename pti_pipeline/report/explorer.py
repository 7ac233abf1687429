"""A stage: its curves against distance beside the samples drawn there, joined by a slider."""

from __future__ import annotations

import math

from pti_pipeline.report.chart import chart
from pti_pipeline.report.markup import Html, el
from pti_pipeline.report.numerals import number, share
from pti_pipeline.report.panels import distances, gains_panel, stage_panels
from pti_pipeline.report.pictures import data_uri
from pti_pipeline.report.study import Drawn, Stage, Study, Trained
from pti_pipeline.report.words import NAMES, TITLES, filled

STOPS = 32
"""Sample grids of a stage's slider, at most."""


def stage_section(study: Study, stage: Stage) -> Html:
    """Curves against distance beside the samples drawn there, joined by a slider."""
    stops = _stops(stage)
    panels = stage_panels(stage)
    axis = distances(stage)
    curves = [chart(panel, [d.distance for _, d in stops]) for panel in panels]
    if not panels:
        text = "No run of this stage was evaluated: there are no curves."
        curves = [el("p", text, class_="absent")]
    axis_id = f"axis-{stage.key}"
    told = f"distance travelled by the {NAMES[stage.key]} (L2, logarithmic)"
    slider = el(
        "div",
        el("input", type="range", min=0, max=1000, step=1, value=0, aria_labelledby=axis_id),
        el(
            "p",
            "drag, or use the arrow keys: the samples drawn at each small tick",
            id=f"{axis_id}-how",
        ),
        class_="slider",
    )
    figures = [_stop(study, stage, run, drawn, axis.at(drawn.distance)) for run, drawn in stops]
    if not stops:
        figures = [el("p", "No sample grids were logged in this stage.", class_="absent")]
    label = f"Samples along the distance, {NAMES[stage.key]}"
    return el(
        "section",
        el("h2", TITLES[stage.key]),
        el("p", f"Chosen: {stage.reason}.", class_="reason") if stage.reason else "",
        el(
            "div",
            el(
                "div",
                *curves,
                el("p", told, class_="axis", id=axis_id),
                slider if stops else "",
                class_="curves",
            ),
            el("div", *figures, class_="stops", role="group", aria_label=label),
            class_="explorer",
        ),
        id=stage.key,
        data_stage=stage.key,
    )


def gains_section(study: Study) -> Html:
    """Gains of appearance, position, pose and environment on one axis."""
    panel = gains_panel(study.final)
    absent = "Left out: no tuning of this study logged the gains on counterfactual twins."
    return el(
        "section",
        el("h2", "What the LoRA learns first"),
        chart(panel) if panel else el("p", absent, class_="absent"),
        el("p", "distance travelled by the LoRA (L2, logarithmic)", class_="axis") if panel else "",
        id="gains",
    )


def _stops(stage: Stage) -> list[tuple[Trained, Drawn]]:
    """Sample grids in order of distance, thinned evenly if there are many; the choice's stays."""
    found = [
        (run, drawn)
        for run in stage.runs
        if run.state == "finished"
        for drawn in run.samples
        if math.isfinite(drawn.distance) and drawn.distance > 0
    ]
    found.sort(key=lambda pair: pair[1].distance)
    apart = math.ceil(len(found) / STOPS) or 1
    return [
        (run, drawn)
        for i, (run, drawn) in enumerate(found)
        if i % apart == 0 or (run.id == stage.choice and drawn is run.samples[-1])
    ]


def _stop(study: Study, stage: Stage, run: Trained, drawn: Drawn, at: float) -> Html:
    last = drawn is run.samples[-1]
    title = f"{stage.label(run)}, step {drawn.step}, distance {number(drawn.distance)}"
    text = "not measured here" if not (last and run.measured) else _values(stage, run)
    chosen = last and run.id == stage.choice
    shown = ", ".join(filled(study, prompt) for prompt in study.prompts)
    picture = el(
        "img",
        src=data_uri(drawn.grid),
        width=drawn.grid.shape[1],
        height=drawn.grid.shape[0],
        alt=f"Samples at {title}: rows show {shown}.",
    )
    prompts = [el("li", filled(study, prompt)) for prompt in study.prompts]
    return el(
        "figure",
        el("div", el("ol", *prompts), picture, class_="grid"),
        el("figcaption", el("b", title), " ", el("span", text)),
        class_="stop chosen" if chosen else "stop",
        data_at=f"{at:.4f}",
        data_title=title + (f", {stage.target}" if chosen else ""),
        data_run=run.id if last else None,
    )


def _values(stage: Stage, run: Trained) -> str:
    shown = {
        "reconstruction": stage.reconstruction,
        "editability": "editability/relative",
        "leak": f"leak/{stage.against}_auc",
        "diversity": "diversity/positions",
    }
    known = {label: run.value(key) for label, key in shown.items()}
    return ", ".join(f"{label} {share(v)}" for label, v in known.items() if math.isfinite(v))
