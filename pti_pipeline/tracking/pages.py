"""Which pages of the MLflow UI show what somebody asks for."""

from __future__ import annotations

from pti_pipeline.errors import UsageError
from pti_pipeline.tracking.addresses import comparison_address, run_address, view_address
from pti_pipeline.tracking.find import Found, find_runs, get_run
from pti_pipeline.tracking.presets import PRESETS
from pti_pipeline.tracking.store import (
    EXPERIMENT,
    connect,
    database,
    experiment_id,
    shown_uri,
    store_uri,
)
from pti_pipeline.tracking.views import write_views


def find_pages(server: str, run: str = "", study: str = "") -> dict[str, str]:
    """Addresses of pages by what they show; the first one is the one to open.

    Parameters
    ----------
    server : str
        ``http://host:port``.
    run : str
        Run id: its own page.
    study : str
        Run id of a study: the page that compares the runs chosen in it.

    Raises
    ------
    UsageError
        If there are no runs yet, or no such run or study.
    """
    if _fresh() or not (run or study or find_runs()):
        what = f"no runs of experiment '{EXPERIMENT}' in {shown_uri()} yet"
        hint = "make some by make demo, or name another experiment by MLFLOW_EXPERIMENT_ID"
        raise UsageError("E233", what, hint)
    client = connect()
    write_views()
    if not (run or study):
        experiment = experiment_id(client, EXPERIMENT)
        return {p.name: view_address(server, experiment, p) for p in PRESETS}
    found = get_run(run or study)
    experiment = client.get_run(found.id).info.experiment_id
    chosen = _chosen(found) if study else []
    pages = {found.name: run_address(server, experiment, found.id)}
    if len(chosen) > 1:
        pages = {"chosen runs": comparison_address(server, experiment, chosen), **pages}
    return pages


def _fresh() -> bool:
    """Whether the store is a database that is not there: to look into it would make it."""
    path = database(store_uri())
    return path is not None and not path.is_file()


def _chosen(study: Found) -> list[str]:
    if study.tags.get("pti.step") != "main":
        hint = "give the id of a run of main"
        raise UsageError("E230", f"run '{study.name}' is no study", hint)
    return [run.id for run in find_runs(study=study.id, chosen="yes")]
