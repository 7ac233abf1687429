"""The documentation as a site: every page, every option, at every width, and nothing fetched."""

import re
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
import yaml
from making.commands import listing, takes

from pti_pipeline.cli import main

ROOT = Path(__file__).parents[2]
ENTRIES = yaml.safe_load((ROOT / "MLproject").read_text("utf-8"))["entry_points"]
ROW = re.compile(r"^\| `--([a-z-]+)` \| (?:`(.*?)`|required|) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def sections():
    """Of each command: its options, and their defaults as text."""
    parts = listing(main, "pti").split("## ")[1:]
    return {part.partition("\n")[0]: dict(ROW.findall(part)) for part in parts}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_parameter_of_the_project_is_listed_with_its_default(sections, entry):
    shown = sections[f"pti {entry}"]
    for key, declared in ENTRIES[entry]["parameters"].items():
        if key != "debug":  # told at the head of the page, of all
            default = "" if declared == "string" else str(declared["default"])
            assert shown[key.replace("_", "-")] == default, key


def test_commands_without_an_entry_point_are_listed_too(sections):
    assert {"pti ui", "pti sync", "pti world train", "pti world check"} <= set(sections)
    assert "quick" in sections["pti world check"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (click.IntRange(1, 4096), "whole number, 1 to 4,096"),
        (click.FloatRange(0), "number, 0 or more"),
        (click.Choice(["sweep", "one-run"]), "`sweep`, `one-run`"),
        (click.BOOL, "`yes`, `no`"),
        (click.STRING, "text"),
    ],
)
def test_what_an_option_takes_is_said_in_words(kind, words):
    assert takes(kind) == words


class Fetched(HTMLParser):
    """Addresses that a page loads by itself."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag in ("script", "img", "iframe") or (
            tag == "link" and named.get("rel") != "canonical"
        ):
            self.found.append(named.get("src") or named.get("href") or "")


@pytest.mark.slow
def test_every_page_is_on_the_site_and_fetches_nothing(site):
    sources = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    contents = (site / "docs/index.html").read_text("utf-8")
    for source in sources:
        page = source.with_suffix(".html")
        text = (site / page).read_text("utf-8")
        assert not [place for place in Fetched(text).found if "//" in place], page
        assert source.stem == "index" or str(page.relative_to("docs")) in contents, page
    assert len(sources) > 18
    assert "docs/index.html" in (site / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_options_and_docstrings_are_on_their_pages(site):
    options = (site / "docs/reference/options.html").read_text("utf-8")
    assert 'id="pti-world-check"' in options and "--regularized-lrs" in options
    api = (site / "docs/reference/api.html").read_text("utf-8")
    for name in ("inversion.invert", "tuning.finetune", "choosing.limit.choose_limit"):
        assert f'id="pti_pipeline.{name}"' in api
    assert "<math" in (site / "docs/explanation/regularizers.html").read_text("utf-8")
