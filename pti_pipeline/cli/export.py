"""``pti export``: a character's files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pti_pipeline.cli.options import option
from pti_pipeline.values import parse_forms


@click.command()
@option(
    "model", "models:/mochi@champion", "Registered version, run id, sweep, or a bundle's folder."
)
@option(
    "form",
    "diffusers,embedding,kohya,bundle",
    "Some of diffusers, embedding, kohya, bundle, and merged, which is the whole model.",
)
@option("output", "exported", "Folder for the files; none that is there is overwritten.")
@option("base", "", "Of merged: base model, if it is elsewhere than at training.")
def export(**o: Any) -> None:
    """Write a character's files in the forms that diffusers, A1111 and ComfyUI open."""
    forms = parse_forms(o["form"])
    from pti_pipeline.steps.export import export

    written, left_out = export(o["model"], forms, Path(o["output"]), o["base"])
    for path in written:
        click.echo(path)
    if left_out:
        click.echo(f"Left out, as a pivot alone has no LoRA: {', '.join(left_out)}.")
