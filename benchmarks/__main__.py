"""Measures what is asked for, prints the table and writes ``benchmarks/results.json``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import click

import pti_pipeline.environment  # noqa: F401

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import cards as cards_rows
from benchmarks import demo as demo_rows
from benchmarks import gpu as gpu_rows
from benchmarks import packs as packs_rows
from benchmarks import peers as peers_rows
from benchmarks import results
from benchmarks.figure import PLACE, packs_figure
from benchmarks.timing import Row


@click.command()
@click.option("--runs", default=40, show_default=True, help="Turns of each comparison.")
@click.option(
    "--peers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with checkouts of the peers, diffusers and lora.",
)
@click.option("--since", help="Commit whose main job is run beside today's: minutes.")
@click.option("--only", type=click.Choice([*results.GROUPS]), help="Measure these rows alone.")
def main(runs: int, peers: Path | None, since: str | None, only: str | None) -> None:
    """Take ratios of CPU time, one thread, and hold them against their gates.

    Rows that are not measured keep their last value and its date. Ends with 1 if a gate is missed
    that known.json does not list.
    """
    torch.set_num_threads(1)
    groups: dict[str, Callable[[], Iterable[Row]]] = {"packs": lambda: packs_rows.rows(runs)}
    if peers:
        groups["peers"] = lambda: peers_rows.rows(peers, runs)
    if since:
        groups["demo"] = lambda: demo_rows.rows(since, max(1, runs // 20))
    if torch.cuda.is_available():
        groups["gpu"] = lambda: chain(
            gpu_rows.rows(gpu_rows.GROUPS["gpu"], runs),
            gpu_rows.diffusers_rows(peers, runs) if peers else (),
        )
        groups["gpu-xl"] = lambda: gpu_rows.rows(gpu_rows.GROUPS["gpu-xl"], runs)
        groups["cards"] = cards_rows.rows
    if only and only not in groups:
        raise click.UsageError(f"can't measure {only} here: {results.GROUPS[only][1]}")
    known = results.read_known()
    measured = [only] if only else [*groups]
    for group in measured:
        for row in groups[group]():
            click.echo(results.line(row, known))
            others = [r for r in results.read() if r.name != row.name]
            results.write([*others, results.stamp(row, group)])
    kept = results.read()
    if gpu_rows.GROUPS.keys() & measured and (drawn := packs_figure(kept)):
        drawn.savefig(PLACE)
    click.echo("\n" + results.table(kept, known))
    sys.exit(any(results.verdict(r, known) == "MISSED" for r in kept))


if __name__ == "__main__":
    main()
