"""From cells to verdicts, and verdicts as JSON and Markdown: the same from the same cells."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pti_pipeline.inference import Estimate
from pti_pipeline.studies.claims.beside import against_baselines
from pti_pipeline.studies.claims.evidence import Evidence
from pti_pipeline.studies.claims.knee import inversion_knee
from pti_pipeline.studies.claims.laws import distance_law, one_run_curve
from pti_pipeline.studies.claims.light import light_tuning
from pti_pipeline.studies.claims.locality import best_arm, locality
from pti_pipeline.studies.claims.mechanism import controls, mechanism
from pti_pipeline.studies.claims.order import order, repeatability
from pti_pipeline.studies.claims.verdict import Verdict

CLAIMS = (
    inversion_knee,
    light_tuning,
    order,
    repeatability,
    distance_law,
    mechanism,
    controls,
    one_run_curve,
    locality,
    best_arm,
    against_baselines,
)
"""A claim is one function, and one line here."""

COMMAND = "mlflow run . -e claims"


def judge(evidence: Evidence) -> Iterator[Verdict]:
    """Judge every claim for which there are cells."""
    for claim in CLAIMS:
        yield from claim(evidence)


def as_json(verdicts: Sequence[Verdict], evidence: Evidence) -> str:
    """Write verdicts, and where their cells were computed."""
    rows = [json.dumps(_row(v) | evidence.origin, ensure_ascii=False) for v in verdicts]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def as_table(verdicts: Sequence[Verdict]) -> str:
    """Lay verdicts out as Markdown."""
    lines = [
        "| claim | verdict | estimate (95 %) | of | subjects x seeds |",
        "|---|---|---|---|---|",
    ]
    for v in verdicts:
        lines.append(
            f"| {v.claim} (`{v.name}`) | **{v.verdict}** | {_shown(v.estimate)} | {v.unit} "
            f"| {v.subjects} x {v.seeds} |"
        )
    return "\n".join(lines) + "\n"


def as_details(verdict: Verdict) -> str:
    """Lay a verdict's further numbers out as Markdown."""
    lines = [f"| `{verdict.name}` | (95 %) |", "|---|---|"]
    for name, value in verdict.details.items():
        shown = _shown(value) if isinstance(value, Estimate) else f"{value:.3g}"
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) + "\n"


def _row(verdict: Verdict) -> dict[str, object]:
    facts = asdict(verdict)
    estimate, details = facts.pop("estimate"), facts.pop("details")
    group = facts.pop("group")
    return {
        **facts,
        "estimate": _digits(estimate["value"]),
        "interval": [_digits(estimate["low"]), _digits(estimate["high"])],
        "details": {
            k: [_digits(n) for n in v.values()] if isinstance(v, dict) else _digits(v)
            for k, v in details.items()
        },
        "command": COMMAND if group == "note" else f"{COMMAND} -P claim={group}",
    }


def _digits(number: float) -> float | None:
    return float(f"{number:.4g}") if math.isfinite(number) else None


def _shown(e: Estimate) -> str:
    return f"{e.value:.3g} ({e.low:.3g} to {e.high:.3g})"
