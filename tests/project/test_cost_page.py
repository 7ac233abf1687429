"""What a study costs, as the page of one's own character says: by the program's own formula."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from pti_pipeline.cli import main
from pti_pipeline.studies import plan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/your-own-character.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "benchmarks/results.json").read_text("utf-8"))
PACKS = {"stable-diffusion-1.5": 16, "stable-diffusion-xl": 4}
"""Tunings in the pack whose time the page takes."""
THREE = {f"{name}_lrs": "0.1,0.2,0.3" for name in ("inversion", "tuning", "regularized")}


def table():
    """Rows of the page's table: what is asked for, and the three numbers beside it."""
    found = re.search(r"^\| \| thousand rows .*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    for line in found[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        yield cells[0], [float(re.match(r"[\d.]+", cell)[0]) for cell in cells[1:4]]


def rows(asked, monkeypatch):
    """Rows of the denoiser that ``main`` counts, of ten pictures and a CLIP model."""
    monkeypatch.setattr(plan, "seconds_a_row", lambda base: 60.0)
    monkeypatch.setattr(plan, "workers", lambda: 1)
    options = {p.name: p.default for p in main.commands["main"].params}
    given = dict(word[2:].split("=") for word in re.findall(r"--[a-z-]+=\w+", asked))
    for name, value in given.items():
        key = name.replace("-", "_")
        options[key] = type(options[key])(value)
    if "three rates" in asked:
        options |= THREE
    options |= {"base": "a folder", "clip_model": "a folder"}
    known = plan.Plan.__dataclass_fields__
    ready = SimpleNamespace(base=None, subject=SimpleNamespace(images=range(10)))
    told = plan.cost(plan.Plan(**{k: v for k, v in options.items() if k in known}), ready)
    return float(re.search(r"about (\d+) minutes", told)[1])


def seconds_a_row(model):
    """Of a tuning's step: a row forward and backward, which counts as three."""
    count = PACKS[model]
    (note,) = (
        each["note"]
        for each in RESULTS
        if each["name"].startswith(f"GPU, {model}: {count} single finetune")
        and each["name"].endswith(f"pack of {count}, eager")
    )
    return float(note.split(" ms")[0]) / 1000 / count / 3


def test_the_table_is_what_the_program_counts(monkeypatch):
    found = list(table())
    assert len(found) > 10
    for asked, (thousand, minutes, hours) in found:
        counted = rows(asked, monkeypatch)
        assert round(counted / 1000) == thousand, asked
        assert minutes == round(counted * seconds_a_row("stable-diffusion-1.5") / 60), asked
        told = counted * seconds_a_row("stable-diffusion-xl") / 3600
        assert hours == pytest.approx(told, abs=0.051), asked


def test_something_fits_an_hour_with_each_model():
    found = [numbers for _, numbers in table()]
    assert min(minutes for _, minutes, _ in found) < 60
    assert min(hours for *_, hours in found) < 1
