"""Measures every row, prints the table and writes ``benchmarks/results.json``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path

import click

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import packs
from benchmarks.timing import Row

RESULTS = Path(__file__).parent / "results.json"


@click.command()
@click.option("--runs", default=40, show_default=True, help="Turns of each comparison.")
def main(runs: int) -> None:
    """Take ratios of CPU time, one thread, and hold them against their gates."""
    torch.set_num_threads(1)
    where = {"machine": machine(), "commit": commit(), "date": date.today().isoformat()}
    measured = []
    for row in packs.rows(runs):
        click.echo(line(row))
        measured.append({**asdict(row), **where})
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    click.echo("\n" + table(measured))


def line(row: Row) -> str:
    """Say a row in one line."""
    verdict = "reached" if row.reached else "MISSED"
    value, goal = (
        (f"{row.ratio:.2%}", f"{row.goal:.0%}") if row.share else (f"{row.ratio:.2f}", row.goal)
    )
    note = f" ({row.note})" if row.note else ""
    return f"{row.name}: {value} +- {row.spread:.2g}, gate {goal}: {verdict}{note}"


def table(rows: Iterable[dict[str, object]]) -> str:
    """Lay results out as Markdown."""
    lines = ["| what | measured | gate | aim |", "|---|---|---|---|"]
    for r in rows:
        scale, unit = (100, " %") if r["share"] else (1, "")
        cells = [f"{float(str(r[k])) * scale:.3g}{unit}" for k in ("ratio", "goal", "aim")]
        lines.append(f"| {r['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> str:
    """Name the processor and its cores."""
    names = [
        text.split(":")[1].strip()
        for text in Path("/proc/cpuinfo").read_text().splitlines()
        if text.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores, no GPU"


def commit() -> str:
    """Short hash of the commit that is measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
