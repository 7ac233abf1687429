"""The site's contents: every page of a folder, under the folder's name."""

from __future__ import annotations

from sphinx.application import Sphinx

PARTS = {
    "Tutorial": ("tutorial/*",),
    "How to": ("how-to/*",),
    "Reference": ("reference/*", "results/*"),
    "Explanation": ("explanation/*",),
    "Project": (
        "Overview </README>",
        "Security </SECURITY>",
        "Contributing </CONTRIBUTING>",
        "Changelog </CHANGELOG>",
        "Model card </pti_pipeline/world/weights/README>",
    ),
}
TITLES = {"docs/results/claims": "Verdicts and numbers of the claims"}
"""Of pages that a program writes without one."""


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Give the first page its contents, and a title to pages without."""
    if page == app.config.root_doc:
        source[0] += "".join(contents(*part) for part in PARTS.items())
    if page in TITLES:
        source[0] = f"# {TITLES[page]}\n\n{source[0]}"


def contents(caption: str, pages: tuple[str, ...]) -> str:
    """One part of the contents, in MyST: folders' pages by their names."""
    lines = ["```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", "", *pages, "```"]
    return "\n\n" + "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
