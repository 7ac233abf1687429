"""The selection step: chooses among a sweep's runs and says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from pti_pipeline.choosing.choice import Choice
from pti_pipeline.choosing.knee import choose_pivot
from pti_pipeline.choosing.limit import choose_limit
from pti_pipeline.choosing.points import Point
from pti_pipeline.choosing.text import choice_text, shortened
from pti_pipeline.curve_figures import sweep_figure
from pti_pipeline.errors import DivergedError
from pti_pipeline.steps.card import plain
from pti_pipeline.steps.swept import Swept, levels, read_points, read_sweep
from pti_pipeline.tracking.find import Found, get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.views import write_views
from pti_pipeline.tracking.write import add_metrics, add_tags

TITLES = {"invert": "Inversion", "finetune": "Fine-tuning"}
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
        If the run is no sweep, its runs did not end or were not evaluated, or they differ in more
        than what was varied.
    DivergedError
        If no experiment is usable.
    """
    swept = read_sweep(get_run(run_id))
    sweep, runs = swept.sweep, swept.runs
    points, measure = read_points(swept)
    known = levels(swept, measure)
    try:
        choice = _choose(swept, points, known["reconstruction"])
    except ValueError as error:
        raise DivergedError("E902", str(error), "sweep smaller learning rates") from error
    chosen = runs[choice.index]
    text = choice_text(
        choice, [plain(r.name) for r in runs], chosen.id, points, measure, swept.left_out
    )
    verdict = {
        "pti.choice": chosen.id,
        "pti.choice_reason": choice.reason,
        "pti.certified": "yes" if choice.certified else "no",
        "pti.bracketed": "yes" if choice.bracketed else "no",
        "pti.sound": "yes" if choice.sound else "no",
        "mlflow.note.content": shortened(text),
    }
    ends = {"distance": choice.value, "low": choice.low, "high": choice.high}
    if (leak := choice.leak) is not None:
        ends |= {"leak_auc": leak.auc, "leak_upper": leak.upper, "leak_p": leak.p}
    numbers = {f"choice/{key}": value for key, value in ends.items() if math.isfinite(value)}
    tags = {"pti.step": "select", "pti.study": study}
    with open_run(f"select {sweep.name}", {"run": sweep.id}, tags) as run:
        run.log_figure(_figure(swept.stage, points, measure, known, choice), "sweep.png")
        run.log_text(text, "choice.md")
        run.log_metrics(numbers)
        run.set_tags(verdict)
    for found in runs:
        add_tags(found, {"pti.chosen": "yes" if found.id == chosen.id else "no"})
    add_metrics(sweep, numbers)
    add_tags(sweep, verdict)
    write_views()
    return chosen, choice


def _choose(swept: Swept, points: Sequence[Point], level: float) -> Choice:
    """Choose; of several pivots or settings, the best of what each one gave.

    Numbers of steps are no such setting: they are places along one curve.
    """
    setting = "" if swept.varied == "steps" else swept.varied
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, run in enumerate(swept.runs):
        key = run.tags.get("pti.pivot", ""), run.params.get(setting, "")
        groups.setdefault(key, []).append(i)
    found = []
    for rows in groups.values():
        own = [points[i] for i in rows]
        try:
            choice = choose_pivot(own) if swept.stage == "invert" else choose_limit(own, level)
        except ValueError:
            if len(groups) == 1:
                raise
        else:
            found.append(choice.among(rows))
    if not found:
        raise ValueError("every experiment of the sweep diverged or collapsed")
    best = max(found, key=lambda c: (c.sound, points[c.index].reconstruction))
    if len(groups) == 1:
        return best
    why = {i: "everything of its pivot or setting diverged" for i in range(len(points))}
    for choice in found:
        why |= dict(choice.rejected)
        why[choice.index] = f"chosen of its own, but {_less(points, choice, best)}"
    del why[best.index]
    kind = "pivots'" if swept.varied in ("", "pivot") else f"values of {swept.varied}:"
    reason = f"the best of {len(groups)} {kind} own choices: {best.reason}"
    return replace(best, reason=reason, rejected=tuple(sorted(why.items())))


def _less(points: Sequence[Point], choice: Choice, best: Choice) -> str:
    if best.sound and not choice.sound:
        return "it leaks or collapsed"
    one, other = points[choice.index].reconstruction, points[best.index].reconstruction
    return f"reconstructs no better ({one:.3f} against {other:.3f})"


def _figure(
    stage: str, points: Sequence[Point], measure: str, known: Mapping[str, float], choice: Choice
) -> Figure:
    own, others = [points[i] for i in choice.rows], set(range(len(points))) - set(choice.rows)
    what = {"reconstruction/bank_gain": "bank gain"}.get(measure, "appearance")
    labels = {
        "reconstruction": f"reconstruction ({what})",
        "editability": f"editability (of the {REFERENCE[stage]}'s)",
        "leak": "position leak (AUC)",
    }
    title = f"{TITLES[stage]}, against the {REFERENCE[stage]}"
    inside = replace(choice, index=choice.rows.index(choice.index))
    return sweep_figure(title, own, inside, labels, known, [points[i] for i in sorted(others)])
