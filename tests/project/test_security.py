"""Pages that name the test of each defence and fault name tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/reference/faults.md"])
def test_the_tests_it_names_are_there(page):
    named = set(re.findall(r"`((?:tests|faults)/[\w/]+\.py)`", (ROOT / page).read_text("utf-8")))
    assert len(named) > 10
    texts = {name: (ROOT / name).read_text("utf-8") for name in named}
    assert [n for n, text in texts.items() if not re.search("def (test|measure)", text)] == []


def test_each_fault_has_its_test():
    table = (ROOT / "docs/reference/faults.md").read_text("utf-8").split("|---|---|---|---|\n")[1]
    rows = table.split("\n\n")[0].splitlines()
    assert len(rows) > 25
    assert [row for row in rows if not re.search(r"`(tests|faults)/", row)] == []


def test_what_it_links_is_there():
    for place, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", TEXT)):
        titles = re.findall(r"^#+ (.*)$", (ROOT / place).read_text("utf-8"), re.MULTILINE)
        assert anchor in [title.lower().replace(" ", "-") for title in titles]


def test_each_row_of_defences_has_its_test():
    rows = TEXT.split("## What holds")[1].split("\n\n`python")[0].splitlines()[4:]
    assert len(rows) > 10
    assert [row for row in rows if not re.search(r"the same two|tests/|`make test`", row)] == []


def test_it_installs_the_torch_of_conda_yaml():
    (torch,) = re.findall(r"torch==\S+", (ROOT / "conda.yaml").read_text("utf-8"))
    assert set(re.findall(r"torch==\S+", TEXT)) == {torch}
