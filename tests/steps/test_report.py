"""The report of studies whose numbers are known, from a real store, read back by an HTML parser."""

import base64
import io
import math
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from PIL import Image
from stores import store_in
from written import DISTANCES, GAINS, STEPS, color, write_study

from pti_pipeline.cli import main
from pti_pipeline.report.chart import chart
from pti_pipeline.report.figures import (
    gains_figure,
    inversion_figure,
    matrix_figure,
    regularized_figure,
    tuning_figure,
)
from pti_pipeline.report.markup import VOID
from pti_pipeline.report.page import page
from pti_pipeline.report.panels import gains_panel, stage_panels
from pti_pipeline.report.pictures import block, rows
from pti_pipeline.report.scales import linear_axis, log_axis
from pti_pipeline.steps.report import gather, report
from pti_pipeline.tracking.addresses import run_address, server_address
from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.runs import open_run

HOSTILE = "<img/src=x/onerror=alert(1)>\"'&</script><script>alert(2)</script>"
SECTIONS = ("open", "invert", "finetune", "gains", "matrix", "runs", "facts")
FIGURES = (inversion_figure, tuning_figure, gains_figure, matrix_figure)


class Node:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.content = tag, dict(attributes), parent, []

    def all(self, tag="", **attributes):
        """Elements inside, in order; ``class_`` asks for one of several classes."""
        found = []
        for child in self.content:
            if isinstance(child, Node):
                given = dict(child.attributes)
                fits = all(
                    value in (given.get("class") or "").split()
                    if key == "class_"
                    else given.get(key.replace("_", "-")) == value
                    for key, value in attributes.items()
                )
                found += [child] * (fits and tag in ("", child.tag)) + child.all(tag, **attributes)
        return found

    def one(self, tag="", **attributes):
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def text(self):
        return "".join(c.text if isinstance(c, Node) else c for c in self.content)


class Tree(HTMLParser):
    """Reads a page strictly: every element is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.root = self.at = Node("", (), None)
        self.feed(text)
        self.close()
        assert self.at is self.root, f"{self.at.tag} is left open"

    def handle_starttag(self, tag, attributes):
        node = Node(tag, attributes, self.at)
        self.at.content.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes {self.at.tag}"
        self.at = self.at.parent

    def handle_data(self, text):
        self.at.content.append(text)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """One store for all studies of this file: making a database takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with store_in(folder):
        yield folder


@pytest.fixture(scope="module")
def whole(shop):
    """A study with everything, as data and as a page."""
    study = gather(get_run(write_study(twins=True)), shop / "grids")
    return study, Tree(page(study)).root


@pytest.fixture(scope="module")
def unmeasured(shop):
    """A study without evaluation and gains."""
    return told(shop, measured=False)


def told(shop, **changes):
    """Page of another study; its figures must be drawn too."""
    study = gather(get_run(write_study(**changes)), shop / "grids")
    for figure in FIGURES:
        figure(study).savefig(io.BytesIO())
    return study, Tree(page(study)).root


def test_one_sentence_tells_the_choice_its_reason_and_the_version(whole):
    _, root = whole
    assert root.one("p", class_="lead").text == (
        "Chosen: the pivot at distance 0.3 (lr 0.003) \u2014 the nearest point \u2014 and the LoRA "
        "at distance 3 (lr 0.003) \u2014 the nearest point \u2014 registered as "
        "models:/x@champion, version 7."
    )
    for stage in ("invert", "finetune"):
        reason = root.one("section", id=stage).one("p", class_="reason").text
        assert reason == "Chosen: the nearest point (distance 0.3); for its own sake."


def test_a_second_tuning_has_its_place_and_the_better_one_is_named(shop, whole):
    study, root = told(shop, stages=("invert", "finetune", "regularized"))
    assert study.final is study.regularized
    assert root.one("p", class_="lead").text == (
        "Chosen: the pivot at distance 0.3 (lr 0.003) \u2014 the nearest point \u2014 and the "
        "regularized LoRA at distance 6 (lr 0.003) \u2014 the nearest point \u2014 registered as "
        "models:/x@champion, version 7. Of the two tunings: locality reconstructs better."
    )
    assert len(root.all("section", class_="card")) == 3
    assert root.one("section", id="regularized").all("figure", class_="stop")
    assert [a.attributes["href"] for a in root.one("nav").all("a")][:3] == [
        "#invert", "#finetune", "#regularized",
    ]  # fmt: skip
    assert len(root.one("section", id="matrix").all("table")) == 3
    assert "no second tuning" not in {t.get_text() for t in regularized_figure(study).texts}
    once, page_once = whole
    assert once.regularized is None and not page_once.all(id="regularized")
    assert once.final is once.finetune


def test_what_is_not_certified_is_told(whole):
    _, root = whole
    text = root.one("section", id="open").text
    assert "The pivot is not certified free of leak" in text and "as high as 0.58," in text
    assert "The LoRA is not certified free of leak" in text
    assert "The pivot leaks: p = 0.04" in text
    assert "Trainings of 20 steps" in text and "One seed" in text


def test_every_section_is_there_and_nothing_is_fetched(whole):
    study, root = whole
    assert [n.attributes["id"] for n in root.all("section") if "id" in n.attributes] == [*SECTIONS]
    links = [n.attributes["href"] for n in root.all("a")]
    assert links == [f"#{part}" for part in SECTIONS[1:]]
    assert all(n.attributes["src"].startswith("data:") for n in root.all() if "src" in n.attributes)
    assert not root.all("link") and not root.all("iframe")
    assert not re.search(r"@import|url\(|@font-face", root.one("style").text)
    assert len(page(study).encode()) < 3e6


def test_pictures_and_headings_are_accessible(whole):
    _, root = whole
    assert all(n.attributes["alt"] for n in root.all("img"))
    assert all(n.attributes["aria-label"] for n in root.all("svg", role="img"))
    assert len(root.all("h1")) == 1 and root.one("html").attributes["lang"] == "en"
    levels = [int(n.tag[1]) for n in root.all() if re.fullmatch("h[1-6]", n.tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    named = {n.attributes["id"] for n in root.all() if "id" in n.attributes}
    assert all(n.attributes["aria-labelledby"] in named for n in root.all("input"))


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_curves_stand_where_the_numbers_are(whole, stage):
    study, root = whole
    first, leak, diversity = stage_panels(getattr(study, stage))
    labels = ["reconstruction", "editability"]
    assert [c.label for c in first.curves] == labels
    ends = [DISTANCES[stage] * 3**i for i in range(3)]
    assert [p.x for p in first.curves[0].points] == pytest.approx(ends)
    assert [p.y for p in first.curves[0].points] == pytest.approx([0.4, 0.5, 0.6])
    assert [p.y for p in first.curves[1].points] == pytest.approx([1.0, 0.8, 0.6])
    (curve,) = leak.curves
    assert [(p.low, p.high) for p in curve.points] == [
        (pytest.approx(0.45 + 0.05 * i), pytest.approx(0.53 + 0.05 * i)) for i in range(3)
    ]
    assert leak.level == 0.5 and diversity.level == 1.0
    plots = root.one("section", id=stage).all("div", class_="plot")
    assert len(plots) == 3
    # a logarithmic axis: three times as far is equally far along it
    marks = plots[0].all("svg", class_="s0")
    places = [float(m.attributes["x"].rstrip("%")) for m in marks]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)
    assert all("class word" not in m.text for m in marks)
    assert "reconstruction 0.5 at distance" in marks[1].one("title").text
    assert len(plots[1].all("polygon", class_="band")) == 1


@pytest.mark.parametrize(("stage", "name"), [("invert", "knee"), ("finetune", "limit")])
def test_the_choice_is_marked_with_its_interval(whole, stage, name):
    study, root = whole
    axis = stage_panels(getattr(study, stage))[0].x
    middle = 3 * DISTANCES[stage]
    for plot in root.one("section", id=stage).all("div", class_="plot"):
        line = plot.one("line", class_="chosen")
        assert float(line.attributes["x1"].rstrip("%")) == pytest.approx(
            100 * axis.at(middle), abs=0.01
        )
        assert plot.one("text", class_="chosen").text == f"{name} {middle:.3g}"
        box = plot.one("rect", class_="interval").attributes
        left, width = (float(box[key].rstrip("%")) for key in ("x", "width"))
        assert left == pytest.approx(100 * axis.at(0.8 * middle), abs=0.01)
        assert left + width == pytest.approx(100 * axis.at(1.5 * middle), abs=0.02)


def test_gains_share_one_axis_and_the_chosen_run_is_in_front(whole):
    study, root = whole
    panel = gains_panel(study.finetune)
    front = {c.label: c for c in panel.curves if not c.faint}
    assert list(front) == ["appearance", "position", "pose", "environment"]
    assert sum(c.faint for c in panel.curves) == 8
    for curve, gain in zip(front.values(), GAINS.values(), strict=True):
        assert [(p.x, p.y) for p in curve.points] == [
            (pytest.approx(3 * step / 20), pytest.approx(gain * 3 * step / 20)) for step in STEPS
        ]
    assert panel.y.low < -0.02 * 9 and panel.y.high > 0.5 * 9
    assert len(root.one("section", id="gains").all("li")) == 4


def test_without_gains_the_panel_is_left_out_and_says_so(unmeasured):
    _, root = unmeasured
    section = root.one("section", id="gains")
    assert not section.all("svg") and "Left out" in section.text


def test_the_slider_has_every_grid_in_order_of_distance(whole):
    _, root = whole
    for stage in ("invert", "finetune"):
        section = root.one("section", id=stage)
        stops = section.all("figure", class_="stop")
        assert len(stops) == 6
        places = [float(s.attributes["data-at"]) for s in stops]
        assert places == sorted(places) and 0 < places[0] < places[-1] < 1
        (chosen,) = section.all("figure", class_="chosen")
        assert "lr 0.003, step 20" in chosen.text and "reconstruction 0.500" in chosen.text
        grays = [color(stage, i, step) for i in range(3) for step in STEPS]
        # by distance: 0.5, 1, 1.5, 3, 4.5, 9 times the stage's
        for stop, gray in zip(stops, grays, strict=True):
            assert decoded(stop.one("img")).mean() == pytest.approx(gray, abs=2)


def decoded(image):
    data = image.attributes["src"].partition("base64,")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_the_matrix_has_a_row_for_each_learning_rate_and_marks_the_chosen(whole):
    _, root = whole
    tables = root.one("section", id="matrix").all("table")
    for table, stage in zip(tables, ("invert", "finetune"), strict=True):
        heads = [th.text for th in table.one("thead").all("th")]
        assert heads == [
            "a photo of <x>",
            "<x> on the left on the beach",
            "<x> on the right in the snow",
        ]
        body = table.one("tbody").all("tr")
        assert [row.one("b").text for row in body] == ["lr 0.001", "lr 0.003", "lr 0.01"]
        assert [row.attributes.get("class") for row in body] == [None, "chosen", None]
        for index, row in enumerate(body):
            cells = [decoded(image) for image in row.all("img")]
            assert {cell.shape for cell in cells} == {(48, 48, 3)}
            assert np.mean(cells) == pytest.approx(color(stage, index, 20), abs=2)


def test_the_table_of_runs_tells_numbers_and_verdicts(whole):
    study, root = whole
    first, second = root.one("section", id="runs").all("table")
    told_ = [[td.text for td in tr.all("td")] for tr in first.one("tbody").all("tr")]
    ids = [run.id[:8] for run in study.invert.runs]
    assert told_[0] == [
        f"invert lr=0.001 seed=0 {ids[0]}", "0.001", "20", "0.02", "0.1", "0.400", "1.000",
        "0.500 (0.450 to 0.530)", "finished", "nearer, reconstruction \u22120.100",
    ]  # fmt: skip
    assert told_[1][-1] == "chosen: the knee"
    assert told_[2][-1] == (
        "farther, reconstruction +0.100; leak detected, p = 0.004; keeps 60% of editability"
    )
    assert [tr.attributes.get("class") for tr in second.one("tbody").all("tr")] == [
        None, "chosen", None,
    ]  # fmt: skip


def test_the_command_that_repeats_the_study_can_be_pasted(whole):
    study, root = whole
    section = root.one("section", id="facts")
    assert sorted(shlex.split(section.one("pre").text)) == [
        "--images=a b", "--initializer=cat", "--seeds=0", "--steps=20", "--token=<x>",
        "main", "pti",
    ]  # fmt: skip
    for fact in (study.id, "b" * 64, "d" * 64, "torch ", "Python "):
        assert fact in section.text


def test_what_runs_say_stays_text(shop):
    study, root = told(shop, token=HOSTILE, name=HOSTILE, note=f"**{HOSTILE}** is {HOSTILE}")
    assert len(root.all("script")) == 1
    assert not any(key.startswith("on") for n in root.all() for key in n.attributes)
    assert root.one("h1").text == f"How far to go with {HOSTILE}"
    assert HOSTILE in root.one("section", id="runs").text
    assert HOSTILE in root.one("section", id="invert").one("p", class_="reason").text
    assert {n.attributes["src"][:5] for n in root.all("img")} == {"data:"}
    assert study.token == HOSTILE


def test_a_diverged_run_is_listed_but_on_no_curve(shop):
    study, root = told(shop, diverged=2)
    table = root.one("section", id="runs").all("table")[0]
    last = table.one("tbody").all("tr")[-1].all("td")
    assert [td.text for td in last[-2:]] == ["diverged", "diverged at step 13"]
    assert [len(c.points) for c in stage_panels(study.invert)[0].curves] == [2, 2]
    assert len(root.one("section", id="invert").all("figure", class_="stop")) == 4
    assert "diverged" in root.one("section", id="matrix").text


def test_a_study_that_was_not_evaluated_says_so(unmeasured):
    study, root = unmeasured
    for stage in ("invert", "finetune"):
        section = root.one("section", id=stage)
        assert "No run of this stage was evaluated" in section.text
        assert not section.all("div", class_="plot") and section.all("img")
    assert "The pivot was not evaluated." in root.one("section", id="open").text
    assert stage_panels(study.invert) == []


def test_a_study_without_pictures_says_so(shop):
    _, root = told(shop, images=False)
    assert not root.all("img") and not root.all("input")
    assert "No sample grids were logged" in root.one("section", id="invert").text
    assert "no sample grids were logged" in root.one("section", id="matrix").text


def test_one_learning_rate_is_enough_and_the_end_of_the_range_is_not_called_a_limit(shop):
    reason = "no limit in this range up to distance 1: extend the sweep"
    note = f"**name** ({'a' * 32}): {reason}."
    study, root = told(shop, lrs=(0.003,), note=note, bracketed="no")
    marks = root.one("section", id="finetune").all("text", class_="chosen")
    assert [mark.text for mark in marks] == ["chosen 1"] * 3
    assert f"The LoRA: {reason}." in root.one("section", id="open").text
    panel = stage_panels(study.invert)[0]
    assert panel.x.low < 0.1 < panel.x.high
    assert len(root.one("section", id="invert").all("figure", class_="stop")) == 2


def test_seeds_have_a_curve_each_and_are_told_apart(whole):
    study, _ = whole
    other = [replace(run, id=f"{run.id}-", seed="1") for run in study.invert.runs]
    stage = replace(study.invert, runs=[*study.invert.runs, *other])
    curves = stage_panels(stage)[0].curves
    assert [c.label for c in curves] == ["reconstruction"] * 2 + ["editability"] * 2
    assert [len(c.points) for c in curves] == [3] * 4
    root = Tree(page(replace(study, invert=stage))).root
    assert len(root.one("section", id="invert").all("ul", class_="legend")[0].all("li")) == 2
    assert "lr 0.003, seed 1" in root.one("section", id="matrix").text


def test_a_study_that_ended_early_shows_what_there_is(shop):
    _, root = told(shop, stages=("invert",))
    assert "There is no sweep of the LoRA" in root.one("section", id="open").text
    assert root.one("p", class_="lead").text.endswith("and no LoRA; nothing is registered.")
    _, root = told(shop, stages=())
    assert "There is no sweep of the pivot" in root.one("section", id="open").text


def test_a_failed_study_tells_its_status(shop):
    with pytest.raises(RuntimeError), open_run("study", {}, {"pti.step": "main"}) as run:
        raise RuntimeError
    root = Tree(page(gather(get_run(run.id), shop / "grids"))).root
    assert "status failed" in root.one("section", id="open").text


def test_page_and_figures_are_artifacts_of_the_study_and_copied(shop, tmp_path):
    run = write_study()
    done = CliRunner().invoke(main, ["report", f"--run={run}", f"--output={tmp_path / 'out'}"])
    assert done.exit_code == 0, done.output
    names = {"index.html", "inversion.png", "tuning.png", "gains.png", "matrix.png"}
    logged = {Path(f.path).name for f in MlflowClient().list_artifacts(run, "report")}
    assert logged == names == {p.name for p in (tmp_path / "out").iterdir()}
    for name in names - {"index.html"}:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.width > 500
    (own,) = find_runs(step="report", study=run)
    assert own.status == "FINISHED" and get_run(run).tags["pti.step"] == "main"
    place = Path(report(run))  # again, over the first
    assert place.read_text("utf-8") == (tmp_path / "out" / "index.html").read_text("utf-8")


def test_figures_show_the_same_points_as_the_page(whole):
    study, _ = whole
    first, leak, diversity = tuning_figure(study).axes
    x, y = first.lines[0].get_data()
    assert x == pytest.approx([1, 3, 9]) and y == pytest.approx([0.4, 0.5, 0.6])
    assert first.get_xscale() == "log" and leak.collections and diversity.lines
    labels = [a.get_ylabel() for a in matrix_figure(study).axes if a.get_ylabel()]
    assert [text.split("\n")[0] for text in labels] == [
        f"{what}, lr {lr}" for what in ("pivot", "LoRA") for lr in (0.001, 0.003, 0.01)
    ]
    assert sum("knee" in text or "limit" in text for text in labels) == 2


def test_a_run_that_is_no_study_is_told_in_one_line(shop):
    with open_run("invert", {}, {"pti.step": "invert"}) as run:
        pass
    before = len(find_runs(step="report"))
    done = CliRunner().invoke(main, ["report", f"--run={run.id}"])
    assert done.exit_code == 2 and done.output.startswith("error[E230]: run 'invert' is no study.")
    assert len(done.output.splitlines()) == 1 and len(find_runs(step="report")) == before


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("http://localhost:5000", "http://localhost:5000/#/experiments/4/runs/abc"),
        ("https://me:secret@host/ml/", "https://host/ml/#/experiments/4/runs/abc"),
    ],
)
def test_links_to_the_ui_hold_no_password(uri, link):
    assert run_address(server_address(uri), "4", "abc") == link


def test_a_store_without_a_server_has_no_address():
    assert server_address("sqlite:///mlflow.db") == ""


def test_axes_hold_all_values_and_have_round_ticks():
    axis = log_axis([0.3, 30.0, math.nan, 0.0])
    assert axis.at(3.0) == pytest.approx(0.5) and axis.low < 0.3 and axis.high > 30
    assert axis.ticks == (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    assert log_axis([1e-3, 1e3]).ticks == (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    narrow = log_axis([0.31, 0.33])
    assert narrow.ticks == (0.31, 0.33)
    assert log_axis([]).low < 1 < log_axis([]).high
    wide = linear_axis([-0.3, 1.7], 0, 1)
    assert wide.ticks == (0.0, 0.5, 1.0, 1.5) and wide.low < -0.3 and wide.high > 1.7


def test_grids_are_cut_into_prompts_and_blocks_of_seeds():
    grid = np.arange(3 * 4).reshape(3, 4, 1).repeat(3, 2).astype(np.uint8)
    parts = rows(grid, 3)
    assert [part[0, :, 0].tolist() for part in parts] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert block(parts[1])[..., 0].tolist() == [[4, 5], [6, 7]]
    wide = np.zeros((2, 6, 3), np.uint8)
    assert block(wide) is wide


def test_a_limit_between_runs_is_marked_beside_the_chosen_run(whole):
    study, _ = whole
    stage = replace(study.finetune, value=1.5 * study.finetune.chosen.distance)
    for panel in stage_panels(stage):
        assert panel.marks == {"chosen": stage.chosen.distance, "limit": stage.value}
        drawn = str(chart(panel))
        assert f"limit {stage.value:.3g}" in drawn and "chosen " in drawn
    near = replace(stage, value=1.001 * stage.chosen.distance)
    assert stage_panels(near)[0].marks == {"limit": near.chosen.distance}
