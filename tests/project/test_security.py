"""SECURITY.md names the test of each defence, and what it says to install."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")


def test_the_tests_it_names_are_there():
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))
    assert len(named) > 10
    assert [name for name in named if "def test" not in (ROOT / name).read_text("utf-8")] == []


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
