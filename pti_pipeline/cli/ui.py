"""The command ``pti ui``."""

from __future__ import annotations

import webbrowser
from typing import Any

import click

from pti_pipeline.cli.options import option


@click.command()
@option("run", "", "Run id: open that run.")
@option("study", "", "Run id of a study: open the comparison of the runs chosen in it.")
@option("port", 5000, "Of the server, on this machine alone.", type=click.IntRange(1, 65535))
@option("open", "yes", "Open the browser: yes or no.", type=bool)
def ui(**o: Any) -> None:
    """Open the MLflow UI on this project's runs, arranged for comparison.

    Serves the runs of ./mlflow.db until Ctrl-C. Where MLFLOW_TRACKING_URI names a server, that one
    is opened.
    """
    if o["run"] and o["study"]:
        raise click.UsageError("--run and --study: give one of them")
    from pti_pipeline.tracking.addresses import server_address
    from pti_pipeline.tracking.pages import find_pages
    from pti_pipeline.tracking.server import HOST, serving
    from pti_pipeline.tracking.store import store_uri

    elsewhere = server_address(store_uri())
    pages = find_pages(elsewhere or f"http://{HOST}:{o['port']}", o["run"], o["study"])
    if elsewhere:
        _show(pages, o["open"])
        return
    click.echo("Starting the MLflow UI ...")
    try:
        with serving(o["port"]) as server:
            _show(pages, o["open"])
            click.echo("Ctrl-C ends it.")
            server.wait()
    except KeyboardInterrupt:
        click.echo()


def _show(pages: dict[str, str], browse: bool) -> None:
    width = max(map(len, pages)) + 1
    for name, address in pages.items():
        click.echo(f"{name + ':':<{width}} {address}")
    if browse:
        webbrowser.open(next(iter(pages.values())))
