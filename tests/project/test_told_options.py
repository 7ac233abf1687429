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
DEFAULTS = {
    "learning rate": ["--lr"],
    "updates": ["--steps"],
    "rows of an update": ["--batch-size"],
    "vectors": ["--vectors"],
    "rank, alpha": ["--rank", "--alpha"],
    "weight decay": ["--weight-decay"],
    "gradient's norm": ["--clip"],
    "average over updates": ["--ema"],
    "draws of timesteps": ["--timestep-bias"],
}
"""Of the rows of "Defaults side by side", the options whose defaults are in the last column."""
SHARED = ("learning rate", "updates", "rows of an update", "weight decay")
AVERAGED = ("average over updates", "draws of timesteps")
ROWS = {
    "invert": {*SHARED, *AVERAGED, "vectors"},
    "finetune": {*SHARED, *AVERAGED, "rank, alpha", "gradient's norm"},
}
"""Rows of each table, and options that its command does not have."""
WITHOUT = {"invert": {"--weight-decay"}, "finetune": set()}
OFF = {
    "--weight-decay": "none",
    "--clip": "not bounded",
    "--ema": "none",
    "--timestep-bias": "even",
}
"""How the page says that a default is 0, or that the command has no such option."""


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


@pytest.mark.parametrize(("name", "of"), [("invert", "token"), ("finetune", "LoRA")])
def test_our_defaults_beside_the_others_are_those_of_the_commands(name, of):
    defaults = {p.opts[0]: p.default for p in main.commands[name].params}

    def told(option):
        value = defaults.get(option, 0)
        return f"{value:g}" if value else OFF[option]

    text = OTHERS.read_text("utf-8").split(f"Of the {of}:\n\n")[1].split("\n\n")[0]
    head, _, *table = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()]
    assert head[-1] == f"`pti {name}`"
    page = {row[0]: row[-1] for row in table}
    assert page.pop("schedule") == "constant"
    assert not [option for option in defaults if re.search("schedul|warmup", option)]
    missing = {o for row in ROWS[name] for o in DEFAULTS[row] if o not in defaults}
    assert missing == WITHOUT[name]  # and no option that is called otherwise by now
    assert page == {row: ", ".join(map(told, DEFAULTS[row])) for row in ROWS[name]}
    nominal = {row[0]: row[1:3] for row in rows("recipe")}
    assert nominal[f"`pti {name}`, defaults"] == [told("--lr"), told("--steps")]
