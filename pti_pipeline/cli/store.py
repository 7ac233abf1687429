"""The commands that look after the tracking store: ``pti sync``."""

from __future__ import annotations

import click

from pti_pipeline.errors import StoreError


@click.command()
def sync() -> None:
    """Send to the tracking store what could not be sent while it was away.

    What runs log is kept on disk until the store has it: beside a SQLite database in .pti, else in
    ~/.pti. Runs whose process died are ended, too.
    """
    from pti_pipeline.steps.attempts import tidy
    from pti_pipeline.tracking.lost import sync

    done = sync()
    tidy()
    click.echo(f"{done.entries} entries sent.")
    for name in done.ended:
        click.echo(f"Ended, its process had died: {name}")
    if done.used:
        click.echo(f"Left alone, as their processes live: {done.used} runs.")
    for reason in done.refused:
        click.echo(f"Refused by the store: {reason}", err=True)
    if done.refused:
        raise SystemExit(StoreError.exit_code)
