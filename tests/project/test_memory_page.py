"""The page's estimates are those that the command prints."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pti_pipeline.cli import main
from pti_pipeline.families.drafts import draft
from pti_pipeline.needs import step_of
from pti_pipeline.settings import FinetuneSettings, InvertSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/memory.md").read_text("utf-8")
ROW = re.compile(
    r"^\| `(?P<model>[\w.-]+)` \| (?P<card>\d+) \| `(?P<options>[^`]*)` \| (?P<invert>[\d.]+) "
    r"\| (?P<finetune>[\d.]+) \| (?P<packs>\d+, \d+) \|",
    re.MULTILINE,
)
ROWS = [found.groupdict() for found in ROW.finditer(PAGE)]


def test_the_page_has_each_of_the_models():
    folders = {path.name for path in (ROOT / "benchmarks/shapes").iterdir()}
    assert {row["model"] for row in ROWS} == folders


def test_goals_are_met():
    """Stable Diffusion 1.5 in 6 GB, XL in 12, 3 medium with a base of 4 bits in 16."""
    for row in ROWS:
        if "0" not in row["packs"].split(", "):
            assert max(float(row["invert"]), float(row["finetune"])) <= int(row["card"])
    assert {(row["model"], row["card"]) for row in ROWS if "0" not in row["packs"].split(", ")} == {
        ("stable-diffusion-1.5", "6"),
        ("stable-diffusion-xl", "12"),
        ("stable-diffusion-3-medium", "16"),
    }


@pytest.mark.slow
def test_what_checkpointing_leaves_to_hold_is_what_the_page_of_updates_says():
    page = (ROOT / "docs/reference/updates.md").read_text("utf-8")
    said = r"an inversion holds (\S+) MB in place of (\S+) and a LoRA (\S+) in place of ([\d.]+)"
    world = draft("world").base
    held = [
        step_of(world, kind(checkpointing=less)).held / 1e6
        for kind in (InvertSettings, FinetuneSettings)
        for less in (True, False)
    ]
    assert [f"{value:.1f}" for value in held] == list(re.search(said, page).groups())


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']} {row['options']}")
def test_an_estimate_is_the_commands(row):
    base = ROOT / "benchmarks/shapes" / row["model"]
    words = ["memory", f"--base={base}", f"--budget={row['card']}", *row["options"].split()]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    lines = {line[:32].strip(): line.split()[-2:] for line in done.output.splitlines()}
    assert lines["at the most"] == [row["invert"], row["finetune"]]
    assert ", ".join(lines[f"experiments in {row['card']}.0 GiB"]) == row["packs"]
