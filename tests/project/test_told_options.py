"""Commands and options that the pages name are those of the program, and their sums are right."""

import re
import shlex
from pathlib import Path

import pytest

from pti_pipeline.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = re.compile(r"^```(?:sh|bash)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = ROOT / "docs/how-to/coming-from.md"


def options(command):
    return {name for param in command.params for name in param.opts}


ALL = set().union(*(options(command) for command in main.commands.values()))


def calls(text):
    """Calls of pti in a page: in blocks of commands, and between backticks."""
    lines = "\n".join(SHELL.findall(text)).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`(pti [^`\n]+)`", text)
    for line in [line.split(" #")[0] for line in lines] + inline:
        if re.match(r"(\.venv/bin/)?pti [a-z]+", line.strip()):
            yield shlex.split(line.replace("...", ""))[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_calls_name_options_of_their_commands(page):
    for name, *words in calls(page.read_text("utf-8")):
        if name == "world":  # a group of commands of its own
            continue
        known = options(main.commands[name]) | {"--help", "--debug"}
        assert {w.partition("=")[0] for w in words if w.startswith("--")} <= known, (name, words)


def rows(head):
    """Cells of each row of the other trainers' tables that begin so."""
    text = OTHERS.read_text("utf-8").replace("\\|", "/")
    for table in re.findall(rf"^\| {head}.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        for row in table.splitlines():
            yield [cell.strip() for cell in row.strip("|").split("|")]


def test_other_trainers_options_have_those_that_are_here():
    found = list(rows("here"))
    assert len(found) > 30
    for row in found:
        assert len(row) == 4
        assert set(re.findall(r"--[a-z-]+", row[0])) <= ALL, row[0]


def test_nominal_distances_are_the_products_of_their_rows():
    found = list(rows("recipe"))
    assert len(found) == 16
    for name, rate, updates, factor, nominal, *_ in found:
        assert float(rate) * float(updates) * float(factor) == pytest.approx(float(nominal)), name
