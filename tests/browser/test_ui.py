"""The MLflow UI after a study, as `pti ui` opens it: a real server, a real browser."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from chromium import FOUND, browse
from stores import store_in
from written import color, write_study

from pti_pipeline.data import load_subject
from pti_pipeline.errors import StoreError
from pti_pipeline.settings import TrainSettings
from pti_pipeline.tracking.addresses import run_address
from pti_pipeline.tracking.dataset import log_dataset, log_pictures
from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.presets import COLUMNS, NAME
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.server import serving
from pti_pipeline.tracking.weights import log_weights
from pti_pipeline.tracking.write import add_files, add_metrics

pytestmark = [
    pytest.mark.browser,
    pytest.mark.ui,
    pytest.mark.skipif(not FOUND, reason="no Chromium: run scripts/install_browser.sh"),
]
LRS = (0.0003, 0.001, 0.003, 0.01)
MOCHI = Path(__file__).parents[2] / "examples/mochi"
TEXT = "(document.body?.innerText ?? '')"

GRAYS = """[...document.images].filter(i => i.src.includes('samples') && i.naturalWidth)
    .map(i => [i, i.getBoundingClientRect()])
    .sort(([, a], [, b]) => a.y - b.y || a.x - b.x)
    .map(([image]) => {
      const ink = new OffscreenCanvas(1, 1).getContext('2d');
      ink.drawImage(image, 50, 50, 1, 1, 0, 0, 1, 1);
      return ink.getImageData(0, 0, 1, 1).data[0];
    })"""
"""Gray levels of the sample grids, in order of reading."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_ui(port, *words):
    command = [sys.executable, "-m", "pti_pipeline", "ui", "--open=no", f"--port={port}", *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in background: ignored
    )


def end_ui(process):
    """Press Ctrl-C: it ends well, and so do all processes that it started."""
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert psutil.wait_procs(started, 5)[1] == []


def pages_of(process):
    """Addresses that `pti ui` prints, by name, once its server answers."""
    pages = {}
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            return pages
        name, _, address = line.strip().rpartition(": ")
        pages[name.strip()] = address.strip()
    raise AssertionError(pages)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A study of four learning rates with everything that its runs log beside numbers."""
    folder = tmp_path_factory.mktemp("ui")
    with store_in(folder) as patch:
        made = write_study("<mochi>", lrs=LRS, twins=True)
        subject = load_subject(MOCHI, 48)

        def again(found):
            patch.setenv("MLFLOW_RUN_ID", found.id)
            return open_run(found.name, {}, {})

        with again(get_run(made)) as run:
            log_pictures(run, [subject])
        for i, found in enumerate(find_runs(step="finetune")):
            with again(found) as run:
                name = "locality" if i % 2 else "none"
                run.log_params(
                    {"regularizer": name, "reg_weight": 0.3, "kappa": 0.5, "reg_every": 1}
                )
                log_dataset([run], subject, MOCHI)
                log_weights(run, "lora", "lora/file", TrainSettings(float(found.params["lr"])))
            add_metrics(get_run(found.id), {"reconstruction/bank_gain": 0.3})
        (folder / "report").mkdir()
        (folder / "report/index.html").write_text("<h1>The report</h1>")
        add_files(get_run(made), folder / "report", "report")
        yield made


@pytest.fixture(scope="session")
def port(study):
    return free_port()


@pytest.fixture(scope="session")
def pages(study, port):
    """What `pti ui` printed; its server runs until the tests end, and no process is left then."""
    process = start_ui(port)
    try:
        yield pages_of(process)
    finally:
        end_ui(process)
        assert not listens(port)


@pytest.fixture(scope="session")
def tab(tmp_path_factory):
    with browse(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_the_table_shows_what_runs_are_compared_by_from_the_left(tab, pages):
    headers = """[...document.querySelectorAll('.ag-header-cell')]
        .sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x)
        .map(cell => cell.innerText.trim()).filter(text => text)"""
    tab.visit(pages["pti: trained runs"], f"{TEXT}.includes('8 matching runs')", 3600)
    tab.wait_for(f"({headers}).includes('pti.chosen')")
    shown = [name for name in tab.evaluate(headers) if name not in ("Run Name", "Created")]
    wanted = [column.split("`")[1] for column in COLUMNS if column != NAME]
    assert shown[: len(wanted)] == wanted  # a narrower window shows fewer, in this order
    tab.wait_for(f"{TEXT}.includes('mochi (') && {TEXT}.includes('lora')")  # pictures and weights
    rows = tab.evaluate(TEXT)
    assert "finetune lr=0.0003 seed=0" in rows and "invert lr=0.01 seed=0" in rows
    assert "yes" in rows.split() and "no" in rows.split()


@pytest.mark.parametrize(
    ("view", "leak"), [("pti: inversions", "leak/class_auc"), ("pti: tunings", "leak/pivot_auc")]
)
def test_charts_are_drawn_against_the_distance_with_grids_side_by_side(tab, pages, view, leak):
    tab.visit(pages[view], f"{TEXT}.includes('4 matching runs')", 1600, 3000)
    for measure in ("reconstruction/appearance", "editability/relative", leak):
        tab.wait_for(f"{TEXT}.includes('distance/log10 vs. {measure}')")
    points = """[...document.querySelectorAll('.scatterlayer')]
        .map(layer => layer.querySelectorAll('path.point').length)"""
    tab.wait_for(f"({points}).filter(count => count === 4).length >= 4")
    tab.wait_for(f"({GRAYS}).length === 4")
    stage = "invert" if view == "pti: inversions" else "finetune"
    grays = [color(stage, index, 20) for index in range(4)]
    assert tab.evaluate(GRAYS) == pytest.approx(grays, abs=3)  # from near to far
    lines = "document.querySelector('.parcoords')?.textContent ?? ''"
    tab.wait_for(f"({lines}).includes('lr') && ({lines}).includes('{leak}')")
    if stage == "finetune":
        words = ("regularizer", "reg_weight", "locality", "none")  # its axes, and two arms
        assert all(word in tab.evaluate(lines) for word in words)
    text = tab.evaluate(TEXT)
    for section in ("Against the distance (log10)", "Sample grids, near to far", "distance ("):
        assert section in text


def test_a_study_has_its_choice_as_its_note_and_its_report_and_pictures(tab, pages, study, port):
    tab.visit(pages["pti: studies"], f"{TEXT}.includes('1 matching run')", 1800)
    tab.wait_for(f"{TEXT}.includes('study <mochi>')")
    place = run_address(f"http://127.0.0.1:{port}", "1", study)
    tab.visit(f"{place}/artifacts", f"{TEXT}.includes('pictures.png')", 1600)
    assert "report" in tab.evaluate(TEXT)


def test_a_run_tells_its_pictures_and_its_weights(tab, pages, study, port):
    run = find_runs(step="finetune", study=study)[0]
    tab.visit(run_address(f"http://127.0.0.1:{port}", "1", run.id), f"{TEXT}.includes('mochi')")
    tab.wait_for(f"{TEXT}.includes('lora')")


def test_the_chosen_runs_are_compared(tab, pages, study, port):
    done = start_ui(port, f"--study={study}")  # the port is taken: it tells so, and ends
    assert done.wait(60) == 2
    assert "error[E234]: port" in done.stdout.read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        done = start_ui(port, f"--study={study}")  # a server's own store: nothing is started
        lines = done.stdout.read().splitlines()
        assert done.wait(60) == 0
    chosen = next(line.split()[-1] for line in lines if line.startswith("chosen runs:"))
    assert chosen.startswith(f"http://127.0.0.1:{port}/#/compare-runs")
    tab.visit(chosen, f"{TEXT}.includes('Comparing 2 Runs')")
    text = tab.evaluate(TEXT)
    for run in find_runs(study=study, chosen="yes"):
        assert run.name in text


def test_ctrl_c_while_the_server_starts_leaves_nothing(study):
    port = free_port()
    process = start_ui(port)
    assert process.stdout.readline().startswith("Starting")
    time.sleep(1)
    end_ui(process)


def test_a_server_that_does_not_start_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://nothing")
    told = pytest.raises(StoreError, match=r"^error\[E510\]: the MLflow UI ended \(.+\)\. Hint")
    with told, serving(free_port()):
        pass
