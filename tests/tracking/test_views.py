import base64
import json
import logging
import sqlite3
import zlib
from urllib.parse import parse_qs

from mlflow import MlflowClient
from written import write_study

from pti_pipeline.tracking.addresses import comparison_address, view_address
from pti_pipeline.tracking.presets import NAME, PRESETS
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.views import TAG, write_views


def views(experiment):
    """An experiment's views by their keys."""
    tags = MlflowClient().get_experiment(experiment).tags
    return {k.removeprefix(TAG): json.loads(v) for k, v in tags.items() if k.startswith(TAG)}


def state(view):
    head, _, packed = view["state"].partition(";")
    assert head == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_the_table_begins_with_what_runs_are_compared_by(experiment):
    write_study(stages=("invert",), lrs=(0.001,))
    write_views()
    table = state(views(experiment)[PRESETS[0].key])
    names = [column.split("`")[1] for column in table["selectedColumns"]]
    assert names[:3] == ["pti.step", "lr", "distance/delta_norm"]
    groups = [name.split("/")[0] for name in names[3:8]]
    assert groups == ["reconstruction", "reconstruction", "editability", "leak", "leak"]
    assert names[8] == "pti.chosen"
    assert table["columnOrder"] == [NAME, *table["selectedColumns"]]
    assert set(table["columnWidths"]) == set(table["columnOrder"])


def test_charts_are_of_one_stage_and_grids_of_its_last_step(experiment):
    write_study(lrs=(0.001,), images=False)
    write_views()
    for key, step, leak in (
        ("pti-inversions", "invert", "leak/class_auc"),
        ("pti-tunings", "finetune", "leak/pivot_auc"),
    ):
        shown = state(views(experiment)[key])
        found = MlflowClient().search_runs([experiment], shown["searchFilter"])
        assert {run.data.tags["pti.step"] for run in found} == {step}
        cards = shown["compareRunCharts"]
        scatters = [card for card in cards if card["type"] == "SCATTER"]
        assert {card["xaxis"]["key"] for card in scatters} == {"distance/log10"}
        assert {"editability/relative", leak} <= {card["yaxis"]["key"] for card in scatters}
        (grids,) = [card for card in cards if card["type"] == "IMAGE"]
        assert (grids["imageKeys"], grids["step"]) == (["samples"], 20)
        sections = [section["uuid"] for section in shown["compareRunSections"]]
        assert {card["metricSectionId"] for card in cards} == set(sections)


def test_views_are_rewritten_only_where_they_differ(experiment):
    write_study(lrs=(0.001,), images=False)
    write_views()
    before = views(experiment)
    write_views()
    assert views(experiment) == before
    params = {"steps": 500, "lr": 0.1}
    with open_run("finetune", params, {"pti.step": "finetune"}):
        pass
    write_views()
    changed = {key for key, view in views(experiment).items() if view != before[key]}
    assert changed == {"pti-tunings"}
    assert views(experiment)["pti-tunings"]["createdAt"] == before["pti-tunings"]["createdAt"]


def test_a_store_that_refuses_the_views_is_one_line_of_warning(store, caplog):
    with open_run("r", {}, {"pti.step": "invert"}):
        pass
    with sqlite3.connect(store / "mlflow.db") as database:
        database.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON experiment_tags "
            "BEGIN SELECT RAISE(ABORT, 'read only'); END"
        )
    with caplog.at_level(logging.WARNING, "pti_pipeline"):
        write_views()
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("pti_pipeline")]
    assert "no views" in line and "\n" not in line and len(line) < 200
    assert views("1") == {}


def test_addresses_hold_what_the_ui_reads():
    page, _, words = view_address("http://h:1", "4", PRESETS[0]).partition("?")
    assert page == "http://h:1/#/experiments/4/runs"
    asked = {
        "viewStateShareKey": [PRESETS[0].key],
        "compareRunsMode": ["TABLE"],
        "workflowType": ["machine_learning"],
    }
    assert parse_qs(words) == asked
    page, _, words = comparison_address("http://h:1", "4", ["a", "b"]).partition("?")
    assert page == "http://h:1/#/compare-runs"
    found = parse_qs(words)
    assert json.loads(found["runs"][0]) == ["a", "b"]
    assert json.loads(found["experiments"][0]) == ["4"]
