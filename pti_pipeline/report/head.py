"""Head of the page: the choice, its numbers, and what it leaves open."""

from __future__ import annotations

import math

from pti_pipeline.report.markup import Html, el
from pti_pipeline.report.numerals import between, number, share
from pti_pipeline.report.study import REGULARIZED, Stage, Study
from pti_pipeline.report.words import NAMES, lead, open_questions

PLACES = {
    "invert": "Pivot",
    "finetune": "LoRA",
    REGULARIZED: "Regularized",
    "gains": "Gains",
    "matrix": "Samples",
    "runs": "Runs",
    "facts": "Reproduction",
}
"""Parts of the page, by the ids of their sections."""


def head(study: Study) -> Html:
    """Tell the choice, its numbers, and what it leaves open."""
    open_ = open_questions(study)
    name = study.token or study.name
    facts = [study.began, _minutes(study.minutes), f"run {study.id[:8]}"]
    return el(
        "header",
        el("p", "Pivotal tuning study", class_="kicker"),
        el("h1", "How far to go with ", el("span", name, class_="token")),
        el("p", " \u00b7 ".join(fact for fact in facts if fact), class_="meta"),
        el(
            "nav",
            *(
                el("a", text, href=f"#{id_}")
                for id_, text in PLACES.items()
                if id_ != REGULARIZED or study.regularized
            ),
            aria_label="Parts",
        ),
        el("p", lead(study), class_="lead"),
        el("div", *(_card(stage) for stage in study.stages), class_="cards"),
        el(
            "section",
            el("h2", "What is not certified"),
            el("ul", *(el("li", text) for text in open_)) if open_ else el("p", "Nothing is open."),
            class_="open",
            id="open",
        ),
    )


def _card(stage: Stage) -> Html:
    run = stage.chosen
    if run is None:
        return el("section", el("h2", NAMES[stage.key].capitalize()), el("p", "None was chosen."))
    auc = f"leak/{stage.against}_auc"
    facts_ = {
        "learning rate": run.lr,
        "distance": number(run.distance) + between(stage.low, stage.high),
        "reconstruction": share(run.value(stage.reconstruction)),
        "editability": share(run.value("editability/relative")),
        f"leak (AUC against the {stage.reference})": share(run.value(auc))
        + between(run.value(f"{auc}_low"), run.value(f"{auc}_high"), ".3f"),
    }
    what = NAMES[stage.key]
    pairs = [p for pair in facts_.items() for p in (el("dt", pair[0]), el("dd", pair[1]))]
    return el(
        "section",
        el("h2", f"{what[0].upper()}{what[1:]}: {stage.target}"),
        el("dl", *pairs),
        class_="card",
    )


def _minutes(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if math.isfinite(minutes) else ""
