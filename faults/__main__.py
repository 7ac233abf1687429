"""Measures part by part, prints each number against its goal and writes the results."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import click

os.environ.setdefault("OMP_NUM_THREADS", "1")

from faults import results
from faults.goals import GOALS, LONG_ONLY
from pti_pipeline.machine import cores


@click.command()
@click.option("--long", is_flag=True, help="Hours; what was measured at this commit is kept.")
@click.option("--part", "parts", multiple=True, type=click.Choice([*GOALS]), help="One alone.")
@click.option("--one", type=click.Choice([*GOALS]), hidden=True, help="Measure in this process.")
def main(long: bool, parts: tuple[str, ...], one: str | None) -> None:
    """Count what faults cost, and hold the counts against their goals.

    Ends with 1 if a goal is missed.
    """
    form = "long" if long else "short"
    if one:
        clock = time.monotonic()
        numbers = import_module(f"faults.{one}").measure(long)
        work = sum(os.times()[:4])  # of this process and of those that it has waited for
        results.write(one, form, numbers, time.monotonic() - clock, work)
        return
    missed: list[str] = []
    told = ""
    with ThreadPoolExecutor(cores()) as side_by_side:
        asked = {part: side_by_side.submit(measured, part, form) for part in parts or _parts(long)}
        for part, measuring in asked.items():
            known = measuring.result()
            lines = show(part, known, long)
            missed += lines
            told += known.get("told", "") if lines else ""
    if missed:  # at the end, where one looks first
        click.echo("\n".join([told, *(f"missed: {line}" for line in missed)]), err=True)
    sys.exit(bool(missed))


def _parts(long: bool) -> list[str]:
    return [part for part in GOALS if long or part not in LONG_ONLY]


def measured(part: str, form: str) -> dict[str, Any]:
    """Measure a part, unless it is a long one that was measured at this very commit."""
    known, commit = results.read().get(part, {}).get(form, {}), results.commit()
    if form == "short" or not results.certain(commit) or known.get("commit") != commit:
        # in a process of its own, which has opened no store when it forks
        words = [sys.executable, "-W", "ignore", "-m", "faults", f"--one={part}"]
        done = subprocess.run(
            [*words, "--long"] if form == "long" else words, capture_output=True, text=True
        )
        if done.returncode:
            raise click.ClickException(f"{part} could not be measured:\n{done.stderr[-4000:]}")
        known = results.read()[part][form] | {"told": done.stderr[-4000:]}
    return known


def show(part: str, known: dict[str, Any], long: bool) -> list[str]:
    """Print a part's numbers against their goals; return a line for each that is missed."""
    numbers, missed = known["numbers"], []
    click.echo(f"{part} ({known['seconds']} s, {known['cpu_seconds']} of a core)")
    for name, goal in GOALS[part].items():
        met = goal.met(numbers[name], long)
        verdict = "" if met else "   MISSED"
        click.echo(f"  {name:<20} {numbers[name]:>10g}   {goal.shown(long)}{verdict}")
        if not met:
            missed.append(f"{part} {name} {numbers[name]:g}, goal {goal.shown(long)}")
    return missed


if __name__ == "__main__":
    main()
