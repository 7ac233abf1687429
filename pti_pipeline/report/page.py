"""The page: one HTML file that fetches nothing."""

from __future__ import annotations

from importlib.resources import files

from pti_pipeline.report.explorer import gains_section, stage_section
from pti_pipeline.report.head import head
from pti_pipeline.report.markup import Html, el
from pti_pipeline.report.matrix import matrix_section
from pti_pipeline.report.study import Study
from pti_pipeline.report.tables import facts_section, runs_section


def page(study: Study) -> str:
    """Render the report of a study.

    Returns
    -------
    str
        An HTML document with its style, script and pictures inside. Without scripts it shows
        everything at once.
    """
    title = f"{study.token or study.name}: pivotal tuning study"
    return "<!DOCTYPE html>\n" + el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("title", title),
            el("style", _own("page.css")),
        ),
        el(
            "body",
            el(
                "main",
                head(study),
                *(stage_section(study, stage) for stage in study.stages),
                gains_section(study),
                matrix_section(study),
                runs_section(study),
                facts_section(study),
            ),
            el("script", _own("page.js")),
        ),
        lang="en",
    )


def _own(name: str) -> Html:
    """Read a file of this package; it is trusted, and holds no closing tag."""
    return Html(files("pti_pipeline.report").joinpath(name).read_text("utf-8"))
