"""The report step: gathers a study from the store, renders page and figures, and logs them."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

from pti_pipeline import __version__
from pti_pipeline.errors import UsageError
from pti_pipeline.preview import PREVIEW
from pti_pipeline.report.figures import (
    gains_figure,
    inversion_figure,
    matrix_figure,
    regularized_figure,
    tuning_figure,
)
from pti_pipeline.report.page import page
from pti_pipeline.report.study import GAINS, REGULARIZED, Drawn, Stage, Study, Trained
from pti_pipeline.tracking.dataset import PROMPTS
from pti_pipeline.tracking.find import Found, fetch, find_runs, get_run, members
from pti_pipeline.tracking.read import history, sample_grids, span, ui_link
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.write import add_files

FIGURES = {
    "inversion.png": inversion_figure,
    "tuning.png": tuning_figure,
    "regularized.png": regularized_figure,
    "gains.png": gains_figure,
    "matrix.png": matrix_figure,
}
PACKAGES = ("torch", "diffusers", "transformers", "peft", "mlflow", "numpy", "scipy")
"""Whose versions the page tells."""


def report(run_id: str, output: Path | None = None) -> str:
    """Write a study's report and log it under ``report/`` of the study's run.

    Parameters
    ----------
    run_id : str
        A run of ``main``, finished or not.
    output : Path, optional
        Folder for a copy.

    Returns
    -------
    str
        Where the store keeps the page.

    Raises
    ------
    UsageError
        If the run is no study.
    """
    run = get_run(run_id)
    if run.tags.get("pti.step") != "main":
        raise UsageError("E230", f"run '{run.name}' is no study", "give the id of a run of main")
    tags = {"pti.step": "report", "pti.study": run.id}
    with open_run(f"report {run.name}", {"run": run.id}, tags), TemporaryDirectory() as temporary:
        study = gather(run, Path(temporary) / "grids")
        folder = Path(temporary) / "report"
        folder.mkdir()
        (folder / "index.html").write_text(page(study), encoding="utf-8")
        for name, figure in FIGURES.items():
            if figure is regularized_figure and not study.regularized:
                continue
            figure(study).savefig(folder / name)
        if output is not None:
            copytree(folder, output, dirs_exist_ok=True)
        return f"{add_files(run, folder, 'report')}/index.html"


def gather(run: Found, folder: Path) -> Study:
    """Collect all that the report shows; ``folder`` takes the sample grids."""
    began, ended = span(run)
    registered = find_runs(study=run.id, step="register")[-1:]
    made = next(iter(registered), run)
    return Study(
        id=run.id,
        name=run.name,
        link=ui_link(run),
        status=run.status,
        token=run.params.get("token", ""),
        initializer=run.params.get("initializer", ""),
        began=f"{began:%Y-%m-%d %H:%M %Z}",
        minutes=(ended - began).total_seconds() / 60 if ended else math.nan,
        model=made.tags.get("pti.model", ""),
        version=made.tags.get("pti.version", ""),
        alias=made.params.get("alias", ""),
        prompts=_prompts(run, folder),
        settings=run.params,
        facts=_facts(run),
        invert=_stage(run, "invert", folder) or Stage("invert", ()),
        finetune=_stage(run, "finetune", folder) or Stage("finetune", ()),
        regularized=_stage(run, REGULARIZED, folder),
        registered=made.tags.get("pti.registered", ""),
        preference=run.tags.get("pti.preference", ""),
    )


def _prompts(study: Found, folder: Path) -> tuple[str, ...]:
    """Prompts of a study's sample grids."""
    if not study.params.get("preview"):
        return PREVIEW
    return tuple(fetch(study, PROMPTS, folder).read_text("utf-8").splitlines())


def _stage(study: Found, key: str, folder: Path) -> Stage | None:
    swept = "invert" if key == "invert" else "finetune"
    sweeps = [
        run
        for run in find_runs(study=study.id, step="sweep", stage=swept)
        if (run.params.get("regularizer", "none") != "none") == (key == REGULARIZED)
    ]
    if not sweeps:
        return None
    sweep = sweeps[-1]
    choices = find_runs(study=study.id, step="select", choice=sweep.tags.get("pti.choice", "-"))
    metrics: Mapping[str, float] = {}
    for found in (sweep, *choices):
        metrics = {**metrics, **found.metrics}
    runs = sorted(
        (_trained(found, folder) for found in members(sweep)),
        key=lambda run: run.distance if math.isfinite(run.distance) else math.inf,
    )
    return Stage(
        key=key,
        runs=runs,
        choice=sweep.tags.get("pti.choice", ""),
        reason=_reason(sweep.tags.get("mlflow.note.content", "")),
        value=metrics.get("choice/distance", math.nan),
        low=metrics.get("choice/low", math.nan),
        high=metrics.get("choice/high", math.nan),
        bracketed=sweep.tags.get("pti.bracketed") != "no",
    )


def _reason(note: str) -> str:
    """Take the reason out of what ``select`` wrote: ``**name** (id): reason.`` and a table."""
    first = note.strip().partition("\n")[0]
    return re.sub(r"^\*\*.*\*\* \([0-9a-f]{32}\): ", "", first).rstrip(".")


def _trained(run: Found, folder: Path) -> Trained:
    moved = history(run, "distance/delta_norm")
    grids = sample_grids(run, folder)
    state = run.tags.get("pti.outcome", "finished") if run.status == "FINISHED" else run.status
    trouble = run.tags.get("pti.error", "")
    if "pti.diverged_step" in run.tags:
        trouble = f"diverged at step {run.tags['pti.diverged_step']}"
    gains = {key: _against(moved, history(run, key)) for key in GAINS if key in run.metrics}
    return Trained(
        id=run.id,
        name=run.name,
        link=ui_link(run),
        state=state.lower(),
        trouble=trouble,
        lr=run.params.get("lr", "?"),
        seed=run.params.get("seed", ""),
        steps=run.params.get("steps", "?"),
        metrics=run.metrics,
        samples=[Drawn(step, moved.get(step, math.nan), grid) for step, grid in grids.items()],
        gains=gains,
    )


def _against(x: Mapping[int, float], y: Mapping[int, float]) -> list[tuple[float, float]]:
    return [(x[step], value) for step, value in y.items() if step in x]


def _facts(run: Found) -> dict[str, str]:
    trained = [r for step in ("finetune", "invert") for r in find_runs(study=run.id, step=step)]
    tags: dict[str, str] = {}
    for found in (*trained, run):
        tags |= found.tags
    known = {
        "study": run.id,
        "base fingerprint": tags.get("pti.base_fingerprint", ""),
        "data fingerprint": tags.get("pti.data_fingerprint", ""),
        "commit": tags.get("mlflow.source.git.commit", ""),
        "versions when this page was made": ", ".join(
            [f"pti-pipeline {__version__}", f"Python {platform.python_version()}"]
            + [f"{name} {number}" for name in PACKAGES if (number := _version(name))]
        ),
    }
    return {label: text for label, text in known.items() if text}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
