"""The command that answers the note's claims: ``pti claims``."""

from __future__ import annotations

from typing import Any

import click

from pti_pipeline.cli.options import made_folder, option


@click.command()
@option("folder", "docs/results", "Folder of cells/, claims.json, claims.md and the figures.")
@option(
    "claim",
    "note",
    "note: knee, limit, order, mechanism; locality: the regularizers, compared at equal compute.",
    type=click.Choice(["note", "locality"]),
)
@option("quick", "no", "Small cells, in quick/ of the folder, to see it run: yes or no.", type=bool)
def claims(**o: Any) -> None:
    """Answer the research note's claims on the embedded world, each with its interval.

    Computes the cells (small trainings with their results) that the folder lacks, which takes
    hours for all of them, and can be stopped and started again; then judges every claim from what
    is there.
    """
    from pti_pipeline.studies.claims import claims

    click.echo(claims(made_folder(o["folder"]), o["quick"], o["claim"]))
