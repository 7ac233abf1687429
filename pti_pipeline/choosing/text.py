"""The text of a choice: its reason, what it is worth, and every run with why it was not taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pti_pipeline.choosing.choice import Choice
from pti_pipeline.choosing.cross_checks import breakpoint, isotonic_crossing, kneedle
from pti_pipeline.choosing.points import Point
from pti_pipeline.curves import Curve
from pti_pipeline.leak import MARGIN

LONGEST = 4500
"""Characters of a run's note: MLflow's tags hold 5000."""


def choice_text(
    choice: Choice,
    names: Sequence[str],
    run_id: str,
    points: Sequence[Point],
    measure: str,
    left_out: Sequence[str],
) -> str:
    """Write a choice down in Markdown.

    Parameters
    ----------
    choice : Choice
    names : sequence of str
        Of the runs, in the order of ``points``.
    run_id : str
        Of the chosen run.
    points : sequence of Point
    measure : str
        Metric that ``reconstruction`` is.
    left_out : sequence of str
        Runs that could not be chosen among, and why.
    """
    parts = [
        f"**{names[choice.index]}** ({run_id}): {choice.reason}.",
        _sentence(choice.certificate),
    ]
    if left_out:
        parts.append(f"Left out: {'; '.join(left_out)}.")
    parts.append(_curves(choice))
    checks = _cross_checks(choice, points)
    if checks:
        parts.append(checks)
    parts.append(_table(choice, names, points, measure))
    return "\n\n".join(parts)


def shortened(text: str) -> str:
    """Cut a text at the end of a line so that it fits a tag."""
    if len(text) <= LONGEST:
        return text
    return text[:LONGEST].rsplit("\n", 1)[0] + "\n\n(the rest is in choice.md)"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _curves(choice: Choice) -> str:
    shown = [
        f"{name} {_shape(curve)}"
        for name, curve in (
            ("reconstruction", choice.fits.reconstruction),
            ("editability", choice.fits.editability),
            ("leak AUC", choice.fits.leak),
        )
    ]
    return f"Fitted in log distance: {'; '.join(shown)}."


def _shape(curve: Curve | None) -> str:
    if curve is None:
        return "not (fewer than three distances have it)"
    residual = f"residual {curve.residual:.2g}"
    if curve.flat:
        return f"flat at {curve.plateau:.3g} ({residual})"
    middle = f"midpoint at distance {10**curve.midpoint:.3g}"
    return f"from {curve.start:.3g} to {curve.plateau:.3g}, {middle} ({residual})"


def _cross_checks(choice: Choice, points: Sequence[Point]) -> str:
    """Say where other rules see the knee or limit; they do not decide."""
    key = "reconstruction" if choice.rule == "knee" else "auc"
    curve = choice.fits.reconstruction if choice.rule == "knee" else choice.fits.leak
    if curve is None or curve.flat:
        return ""
    own = [points[i] for i in choice.rows if not points[i].broken]
    kept = [p for p in own if math.isfinite(getattr(p, key))]
    kept = [p for p in kept if curve.low <= p.x <= curve.high]
    x, y = (np.array([getattr(p, name) for p in kept]) for name in ("x", key))
    value = 0.9 * curve.plateau if choice.rule == "knee" else MARGIN
    found = {"isotonic fit": isotonic_crossing(x, y, value, rising=True)}
    if choice.rule == "knee":
        found |= {"Kneedle": kneedle(x, y), "two segments": breakpoint(x, y)}
    words = [f"{k} {'none' if v is None else format(10**v, '.3g')}" for k, v in found.items()]
    return f"Cross-checks of the {choice.rule}, which do not decide: {', '.join(words)}."


def _table(choice: Choice, names: Sequence[str], points: Sequence[Point], measure: str) -> str:
    shown = measure.rsplit("/", 1)[-1].replace("_", " ")
    lines = [
        f"| run | distance | {shown} | editability | leak AUC (95 %) | verdict |",
        "|---|---|---|---|---|---|",
    ]
    why = dict(choice.rejected)
    for i, (name, p) in enumerate(zip(names, points, strict=True)):
        verdict = "**chosen**" if i == choice.index else why.get(i, "")
        leak = f"{p.auc:.2f} ({p.low:.2f} to {p.high:.2f})" if math.isfinite(p.auc) else "-"
        cells = [name, _cell(p.distance, ".3g"), _cell(p.reconstruction, ".3f")]
        cells += [_cell(p.editability, ".2f"), leak, verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"
