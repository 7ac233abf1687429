"""What the MLflow UI shows of an experiment without being arranged: its views as plain data.

The UI reads a shared view from an experiment's tag; the form of its state is that of MLflow 3.17's
own pages, which is documented nowhere: whoever writes it must expect that it is ignored.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAME = "attributes.`Run Name`"
COLUMNS: Mapping[str, int] = {
    NAME: 260,
    "tags.`pti.step`": 90,
    "params.`lr`": 80,
    "metrics.`distance/delta_norm`": 150,
    "metrics.`reconstruction/bank_gain`": 190,
    "metrics.`reconstruction/appearance`": 200,
    "metrics.`editability/relative`": 160,
    "metrics.`leak/class_auc`": 120,
    "metrics.`leak/pivot_auc`": 120,
    "tags.`pti.chosen`": 100,
    "params.`seed`": 70,
    "params.`regularizer`": 110,
    "params.`reg_weight`": 100,
    "params.`kappa`": 80,
    "params.`reg_every`": 90,
    "attributes.`Dataset`": 200,
    "attributes.`Models`": 160,
}
"""Columns of the tables of trainings, from the left, with their widths in CSS pixels."""
SUMMARY: Mapping[str, int] = {
    NAME: 160,
    "attributes.`Description`": 420,
    "tags.`pti.model`": 100,
    "tags.`pti.version`": 110,
    "params.`steps`": 80,
    "params.`seeds`": 80,
    "params.`inversion_lrs`": 190,
    "params.`tuning_lrs`": 190,
    "params.`regularizer`": 110,
    "params.`regularized_lrs`": 190,
}
"""Columns of the table of studies; the first one is their choice."""
MEASURES: Mapping[str, tuple[str, ...]] = {
    "invert": (
        "reconstruction/bank_gain",
        "reconstruction/appearance",
        "editability/relative",
        "leak/class_auc",
    ),
    "finetune": (
        "reconstruction/bank_gain",
        "reconstruction/appearance",
        "editability/relative",
        "leak/pivot_auc",
    ),
}
"""What is drawn against the distance, by stage; charts of what was not measured stay hidden."""

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "invert": ("lr",),
    "finetune": ("regularizer", "reg_weight", "lr"),
}
"""What lines lead from to the measures, by stage."""

_OF = "tags.`pti.step` = '{}'"


@dataclass(frozen=True)
class Preset:
    """One view of an experiment.

    Attributes
    ----------
    key : str
        In the tag's name and in the address.
    name : str
        In the UI's menu of views.
    mode : str
        ``"TABLE"`` or ``"CHART"``, as it is opened.
    stage : str
        Of the runs that charts are drawn of; empty for a table.
    filter : str
        MLflow's search expression of its runs.
    columns : mapping of str to int
    """

    key: str
    name: str
    mode: str
    stage: str
    filter: str
    columns: Mapping[str, int]


PRESETS = (
    Preset("pti-runs", "pti: trained runs", "TABLE", "", "params.lr != ''", COLUMNS),
    Preset("pti-inversions", "pti: inversions", "CHART", "invert", _OF.format("invert"), COLUMNS),
    Preset("pti-tunings", "pti: tunings", "CHART", "finetune", _OF.format("finetune"), COLUMNS),
    Preset("pti-studies", "pti: studies", "TABLE", "", _OF.format("main"), SUMMARY),
)
"""The first one is what a newcomer sees."""


def encoded(preset: Preset, step: int) -> str:
    """State of a view as the UI reads it: deflated JSON in base 64.

    Parameters
    ----------
    preset : Preset
    step : int
        At which sample grids are shown side by side.
    """
    columns = [column for column in preset.columns if column != NAME]  # which is always there
    state: dict[str, Any] = {
        "searchFilter": preset.filter,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": [NAME, *columns],
        "columnWidths": dict(preset.columns),
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
    }
    if preset.stage:
        # the UI puts grids side by side from the last run to the first: near to far
        state |= {"orderByKey": "metrics.`distance/delta_norm`"}
        state |= _charts(preset.stage, step)
    packed = zlib.compress(json.dumps(state).encode(), 9)
    return "deflate;" + base64.b64encode(packed).decode()


def _charts(stage: str, step: int) -> dict[str, Any]:
    """Scatters against the distance, sample grids side by side, parallel coordinates."""
    measures = MEASURES[stage]
    scatters = [
        _card("SCATTER", "against", xaxis=_axis("distance/log10"), yaxis=_axis(key))
        for key in measures
    ]
    grids = _card("IMAGE", "samples", imageKeys=["samples"], step=step, showRunParams=False)
    axes = ["distance/delta_norm", *(key for key in measures if "appearance" not in key)]
    lines = _card("PARALLEL", "settings", selectedParams=[*SETTINGS[stage]], selectedMetrics=axes)
    sections = {
        "against": ("Against the distance (log10)", 2, 340),
        "samples": ("Sample grids, near to far", 1, 640),
        "settings": ("From the settings to the leak", 1, 400),
    }
    return {
        "isAccordionReordered": True,  # else the sections that the UI adds would come first
        "compareRunCharts": [
            {"uuid": f"pti-{i}", **card} for i, card in enumerate((*scatters, grids, lines))
        ],
        "compareRunSections": [
            {
                "uuid": key,
                "name": name,
                "columns": columns,
                "cardHeight": height,
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
            for key, (name, columns, height) in sections.items()
        ],
    }


def _card(kind: str, section: str, **own: Any) -> dict[str, Any]:
    usual = {"runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    return {"type": kind, "metricSectionId": section, **usual, **own}


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}
