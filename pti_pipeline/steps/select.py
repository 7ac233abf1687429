"""The selection step: chooses among a sweep's runs and says why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pti_pipeline.errors import DivergedError, UsageError
from pti_pipeline.figures import sweep_figure
from pti_pipeline.knee import Choice, Point, choose_limit, choose_pivot
from pti_pipeline.tracking.find import Found, get_run, members
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.write import add_tags

REFERENCE = {"invert": "class word", "finetune": "pivot"}


def select(run_id: str, study: str = "") -> tuple[Found, Choice]:
    """Choose the pivot (of an inversion's sweep) or the LoRA (of a tuning's) and mark it.

    Parameters
    ----------
    run_id : str
        Summary run of an evaluated sweep.
    study : str
        Run id of the study that this belongs to.

    Returns
    -------
    Found, Choice
        The chosen run, and why.

    Raises
    ------
    UsageError
        If the run is no sweep, or its runs were not evaluated.
    DivergedError
        If no experiment is usable.
    """
    sweep = get_run(run_id)
    if sweep.tags.get("pti.step") != "sweep":
        raise UsageError("E213", f"run '{sweep.name}' is no sweep", "give a sweep's run id")
    stage = sweep.tags["pti.stage"]
    measured = [r for r in members(sweep) if "reconstruction/bank_gain" in r.metrics]
    runs = sorted(measured, key=lambda run: run.metrics["distance/delta_norm"])
    if not runs:
        raise UsageError(
            "E214", f"no run of '{sweep.name}' was evaluated", f"evaluate --run {sweep.id} first"
        )
    try:
        choice = _choose(runs, stage)
    except ValueError as error:
        raise DivergedError("E902", str(error), "sweep smaller learning rates") from error
    chosen = runs[choice.index]
    tags = {"pti.step": "select", "pti.study": study, "pti.choice": chosen.id}
    with open_run(f"select {sweep.name}", {"run": sweep.id}, tags) as run:
        title = {"invert": "Inversion", "finetune": "Fine-tuning"}[stage]
        rows = [_row(r, stage) for r in runs]
        figure = sweep_figure(title, rows, choice.index, REFERENCE[stage])
        run.log_figure(figure, "sweep.png")
        text = f"**{chosen.name}** ({chosen.id}): {choice.reason}.\n\n{_table(runs, rows)}"
        run.log_text(text, "choice.md")
        run.set_tags({"mlflow.note.content": text})
    for found in runs:
        add_tags(found, {"pti.chosen": "yes" if found.id == chosen.id else "no"})
    add_tags(sweep, {"pti.choice": chosen.id, "mlflow.note.content": text})
    return chosen, choice


def _choose(runs: Sequence[Found], stage: str) -> Choice:
    """Choose among runs; of a tuning around several pivots, the best of what each one gave."""
    if stage == "invert":
        return choose_pivot([_point(run, stage) for run in runs])
    choices = []
    for pivot in dict.fromkeys(run.tags["pti.pivot"] for run in runs):
        rows = [i for i, run in enumerate(runs) if run.tags["pti.pivot"] == pivot]
        choice = choose_limit([_point(runs[i], stage) for i in rows])
        choices.append(replace(choice, index=rows[choice.index]))
    gains = [_row(runs[c.index], stage)["reconstruction"] for c in choices]
    ranks = [(c.sound, math.isfinite(g), g) for c, g in zip(choices, gains, strict=True)]
    best = choices[ranks.index(max(ranks))]
    if len(choices) == 1:
        return best
    return replace(best, reason=f"the best of {len(choices)} pivots' own choices: {best.reason}")


def _point(run: Found, stage: str) -> Point:
    m = run.metrics
    return Point(
        distance=m["distance/delta_norm"],
        reconstruction=m["reconstruction/bank_gain"],
        editability=m.get("editability/relative", math.nan),
        leak=m.get("leak/class_p" if stage == "invert" else "leak/pivot_p", math.nan),
    )


def _row(run: Found, stage: str) -> dict[str, float]:
    m, against = run.metrics, "class" if stage == "invert" else "pivot"
    shown = "reconstruction/appearance"
    return {
        "lr": m["train/lr"],
        "distance": m["distance/delta_norm"],
        "reconstruction": m.get(shown, m["reconstruction/bank_gain"]),
        "editability": m.get("editability/relative", math.nan),
        "leak": m.get(f"leak/{against}_auc", math.nan),
        "leak_low": m.get(f"leak/{against}_auc_low", math.nan),
        "leak_high": m.get(f"leak/{against}_auc_high", math.nan),
    }


def _table(runs: Sequence[Found], rows: Sequence[dict[str, float]]) -> str:
    lines = [
        "| run | distance | reconstruction | editability | leak AUC (95 %) |",
        "|---|---|---|---|---|",
    ]
    for run, row in zip(runs, rows, strict=True):
        lines.append(
            f"| {run.name} | {row['distance']:.3g} | {row['reconstruction']:.3f} "
            f"| {row['editability']:.2f} "
            f"| {row['leak']:.2f} ({row['leak_low']:.2f} to {row['leak_high']:.2f}) |"
        )
    return "\n".join(lines)
