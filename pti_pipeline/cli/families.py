"""``pti families``: which base models can be trained on."""

from __future__ import annotations

import click


@click.command()
def families() -> None:
    """List the families of base models: what each is recognised by, and what it supports."""
    from pti_pipeline.families import FAMILIES

    for name, family in FAMILIES.items():
        files = ", ".join(family.files)
        click.echo(
            f"{family.title}: a folder or hub id of a {name}, or a .safetensors file ({files}); "
            f"predicts {family.predicts}; the token goes to {family.learns}; "
            f"exports {', '.join(family.exports)}."
        )
