"""What a sweep's runs logged, as points to choose among."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pti_pipeline.choosing.points import Point
from pti_pipeline.errors import DivergedError, PtiError, UsageError
from pti_pipeline.tracking.find import Found, find_runs, get_run, members

FREE = ("lr", "seed", "pivot")
"""Parameters in which any sweep's runs may differ."""
SHARED = ("base_fingerprint", "data_fingerprint", "token", "initializer")
"""Tags in which no sweep's runs may differ."""


@dataclass(frozen=True)
class Swept:
    """Runs of a sweep that can be chosen among, and what kept the others out."""

    sweep: Found
    stage: str
    runs: tuple[Found, ...]
    left_out: tuple[str, ...]
    varied: str


def read_sweep(sweep: Found) -> Swept:
    """Sort a sweep's runs, the nearest first and the diverged last, and say what is left out.

    Raises
    ------
    UsageError
        If the run is no sweep, its runs did not end or were not evaluated, or they differ in more
        than what was varied.
    DivergedError
        If every experiment diverged.
    """
    if sweep.tags.get("pti.step") != "sweep":
        raise UsageError("E213", f"run '{sweep.name}' is no sweep", "give a sweep's run id")
    runs, left_out = [], []
    every = members(sweep)
    ended = [r for r in every if r.tags.get("pti.outcome") == "finished" and r.status == "FINISHED"]
    ill = [r for r in every if r.tags.get("pti.outcome") == "diverged"]
    if not ended and ill:
        what = "every experiment of the sweep diverged"
        raise DivergedError("E902", what, "sweep smaller learning rates")
    if not ended:
        states = ", ".join(sorted({r.status for r in every})) or "none at all"
        what = f"'{sweep.name}' has no finished run ({states})"
        raise UsageError("E224", what, "wait for it, or sweep again")
    for run in every:
        if run in ill:
            runs.append(run)
        elif run not in ended:
            left_out.append(f"{run.name}: {run.status.lower()}, not finished")
        elif why := run.tags.get("pti.unsampled"):
            left_out.append(f"{run.name}: {why}")
        elif "reconstruction/bank_gain" not in run.metrics:
            left_out.append(f"{run.name}: not evaluated")
        else:
            runs.append(run)
    if len(runs) == len(ill):
        what = f"no run of '{sweep.name}' was evaluated"
        raise UsageError("E214", what, f"evaluate --run {sweep.id} first")
    varied = sweep.params.get("vary", "").partition(":")[0]
    _check_alike(sweep, runs, varied)
    runs.sort(key=lambda run: (run in ill, run.metrics.get("distance/delta_norm", math.inf)))
    return Swept(sweep, sweep.tags["pti.stage"], tuple(runs), tuple(left_out), varied)


def _check_alike(sweep: Found, runs: Sequence[Found], varied: str) -> None:
    """Refuse runs that differ in more than was varied: their distances would not compare."""
    names = sorted({name for run in runs for name in run.params} - {*FREE, varied})
    differing = [n for n in names if len({run.params.get(n) for run in runs}) > 1]
    differing += [n for n in SHARED if len({run.tags.get(f"pti.{n}") for run in runs}) > 1]
    if differing:
        what = f"the runs of '{sweep.name}' also differ in {', '.join(differing)}"
        raise UsageError("E223", what, "sweep one setting at a time with --vary")


def read_points(swept: Swept) -> tuple[list[Point], str]:
    """Points of a sweep, and which metric their reconstruction is.

    A knee needs the smooth and always measured gain on the fixed bank. Of tunings that rises
    with copying, so they are compared by the appearance of samples where that is read.
    """
    measure = "reconstruction/appearance"
    measured = [r for r in swept.runs if "reconstruction/bank_gain" in r.metrics]
    read = all(math.isfinite(r.metrics.get(measure, math.nan)) for r in measured)
    if swept.stage == "invert" or not read:
        measure = "reconstruction/bank_gain"
    pivots = {p: _pivot_gain(p) for p in {r.tags.get("pti.pivot", "") for r in swept.runs}}
    samples = _samples(swept.sweep)
    return [_point(r, swept.stage, measure, samples, pivots) for r in swept.runs], measure


def read_point(run: Found) -> Point:
    """Point of one run by itself."""
    pivot = run.tags.get("pti.pivot", "")
    gains = {pivot: _pivot_gain(pivot)}
    return _point(run, run.tags["pti.step"], "reconstruction/bank_gain", 0, gains)


def _point(run: Found, stage: str, measure: str, samples: int, pivots: dict[str, float]) -> Point:
    m = run.metrics
    leak = "leak/class" if stage == "invert" else "leak/pivot"
    before = pivots[run.tags.get("pti.pivot", "")]
    return Point(
        distance=m.get("distance/delta_norm", math.nan),
        reconstruction=m.get(measure, math.nan),
        editability=m.get("editability/relative", math.nan),
        leak=m.get(f"{leak}_p", math.nan),
        auc=m.get(f"{leak}_auc", math.nan),
        low=m.get(f"{leak}_auc_low", math.nan),
        high=m.get(f"{leak}_auc_high", math.nan),
        samples=samples,
        seed=int(run.params.get("seed", 0)),
        lr=float(run.params.get("lr", math.nan)),
        steps=int(run.params.get("steps", 0)),
        gain=1 - (1 - m.get("reconstruction/bank_gain", math.nan)) / (1 - before),
        diverged=run.tags.get("pti.outcome") == "diverged",
    )


def _pivot_gain(pivot: str) -> float:
    """Bank gain of a tuning's pivot over the class word; 0 if it is unknown, or for inversions."""
    try:
        return get_run(pivot).metrics.get("reconstruction/bank_gain", 0.0) if pivot else 0.0
    except PtiError:
        return 0.0


def _samples(sweep: Found) -> int:
    """Samples that the leak was measured on, from the last evaluation; 0 if unknown."""
    found = find_runs(step="evaluate", evaluated=sweep.id)
    return int(found[-1].params.get("samples", 0)) if found else 0


def levels(swept: Swept, measure: str) -> dict[str, float]:
    """Return the reference's own values."""
    level = 0.0
    if swept.stage == "finetune":
        before = [r.metrics.get(f"{measure}_before", math.nan) for r in swept.runs]
        known = [v for v in before if math.isfinite(v)]
        level = sum(known) / len(known) if known else _pivot_gain(swept.runs[0].tags["pti.pivot"])
    return {"reconstruction": level, "editability": 1.0, "leak": 0.5}
