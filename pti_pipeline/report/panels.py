"""Curves against distance, as data: the page draws them as SVG, the figures with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pti_pipeline.report.scales import Axis, linear_axis, log_axis
from pti_pipeline.report.study import GAINS, Stage, Trained


@dataclass(frozen=True)
class Point:
    """A value at a distance, with its interval (NaN without one) and the run that gave it."""

    x: float
    y: float
    run: str
    low: float = math.nan
    high: float = math.nan
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """Points of one quantity in order of distance.

    ``style`` (0 to 3) gives color, dashes and marker alike, so that no curve is told by its color
    alone. A ``faint`` curve stands behind the others and is not in the legend.
    """

    label: str
    style: int
    points: Sequence[Point]
    faint: bool = False


SAME = 0.01
"""Relative gap below which two distances are one."""


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes.

    Attributes
    ----------
    title, note : str
        What is drawn, and in which unit and direction.
    curves : sequence of Curve
        Each has points.
    x, y : Axis
    level : float
        Where a horizontal line marks "nothing"; NaN for none.
    chosen : float
        Distance of the chosen run; NaN for none.
    found, low, high : float
        That of the knee or limit and its interval; NaN for none.
    mark : str
        What the choice is called.
    """

    title: str
    note: str
    curves: Sequence[Curve]
    x: Axis
    y: Axis
    level: float = math.nan
    chosen: float = math.nan
    found: float = math.nan
    low: float = math.nan
    high: float = math.nan
    mark: str = ""

    @property
    def marks(self) -> dict[str, float]:
        """Distances to be named: that of the choice, and of the run if it lies elsewhere."""
        if not math.isfinite(self.chosen):
            return {}
        apart = math.isfinite(self.found) and abs(self.found / self.chosen - 1) > SAME
        if not apart or self.mark == "chosen":
            return {self.mark: self.chosen}
        return {"chosen": self.chosen, self.mark: self.found}


def distances(stage: Stage) -> Axis:
    """Axis of every distance of a stage: that of its runs and of their sample grids."""
    ends = [run.distance for run in stage.runs if run.measured]
    drawn = [d.distance for run in stage.runs if run.state == "finished" for d in run.samples]
    return log_axis([*ends, *drawn, stage.value, stage.low, stage.high])


def stage_panels(stage: Stage) -> list[Panel]:
    """What was gained and lost against distance; panels without any value are left out."""
    read = stage.reconstruction == "reconstruction/appearance"
    leak = f"leak/{stage.against}_auc"
    shares = [
        *_curves(stage, "reconstruction", 0, stage.reconstruction),
        *_curves(stage, "editability", 1, "editability/relative"),
    ]
    what = "appearance read back" if read else "share of the bank loss gained"
    panels = [
        _panel(
            stage,
            "Reconstruction and editability",
            f"{what}; prompts obeyed, relative to the {stage.reference}",
            shares,
            (0.0, 1.0 if read else 0.1),
        ),
        _panel(
            stage,
            "Position leak",
            f"AUC against the {stage.reference}, with 95 % interval; 0.5 = none",
            _curves(stage, "leak", 2, leak),
            (0.4, 0.7),
            level=0.5,
        ),
        _panel(
            stage,
            "Diversity of positions",
            "spread over the class word's; 1 = as random as the base",
            _curves(stage, "diversity", 3, "diversity/positions"),
            (0.0, 1.0),
            level=1.0,
        ),
    ]
    return [panel for panel in panels if panel.curves]


def gains_panel(stage: Stage) -> Panel | None:
    """Gains of every factor along the tunings, on one axis; None if no run logged them."""
    curves = []
    for run in sorted(stage.runs, key=lambda run: run.id == stage.choice):
        for style, key in enumerate(GAINS):
            pairs = sorted((x, y) for x, y in run.gains.get(key, ()) if _drawable(x, y))
            points = [Point(x, y, run.id, label=run.name) for x, y in pairs]
            label = key.partition("/")[2].replace("scene", "environment")
            curves.append(Curve(label, style, points, faint=run.id != stage.choice))
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    if all(curve.faint for curve in curves):
        curves = [Curve(c.label, c.style, c.points) for c in curves]
    points = [point for curve in curves for point in curve.points]
    ys = [point.y for point in points]
    peak = max(max(ys), -min(ys), 1e-6)
    return Panel(
        "Gains along the tuning",
        "share of the base's loss: appearance on twins that share only the character, the others "
        "on the training pictures beyond twins that differ in this alone; thin: the other runs",
        curves,
        log_axis([point.x for point in points]),
        linear_axis(ys, min(0.0, -0.1 * peak), 0.5 * peak),
        0.0,
        stage.chosen.distance if stage.chosen else math.nan,
        stage.value,
        stage.low,
        stage.high,
        stage.target,
    )


def _panel(
    stage: Stage,
    title: str,
    note: str,
    curves: Sequence[Curve],
    span: tuple[float, float],
    level: float = math.nan,
) -> Panel:
    points = [point for curve in curves for point in curve.points]
    ys = [v for point in points for v in (point.y, point.low, point.high)]
    chosen = stage.chosen.distance if stage.chosen else math.nan
    return Panel(
        title,
        note,
        curves,
        distances(stage),
        linear_axis(ys, *span),
        level,
        chosen,
        stage.value,
        stage.low,
        stage.high,
        stage.target,
    )


def _curves(stage: Stage, label: str, style: int, key: str) -> list[Curve]:
    """One curve for each seed, so that no line jumps between trainings of different draws."""
    seeds = dict.fromkeys(run.seed for run in stage.runs)
    parts = [[run for run in stage.runs if run.seed == seed] for seed in seeds]
    points = [[_point(run, key) for run in part if _has(run, key)] for part in parts]
    return [Curve(label, style, part) for part in points if part]


def _has(run: Trained, key: str) -> bool:
    return run.measured and _drawable(run.distance, run.value(key))


def _drawable(x: float, y: float) -> bool:
    return math.isfinite(x) and x > 0 and math.isfinite(y)


def _point(run: Trained, key: str) -> Point:
    low, high = run.value(f"{key}_low"), run.value(f"{key}_high")
    return Point(run.distance, run.value(key), run.id, low, high, run.name)
