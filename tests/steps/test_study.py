"""The main job for real, on the embedded model, as a user runs it; a few steps only."""

import base64
import io
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import StableDiffusionPipeline
from documented import outside, untold
from mlflow import MlflowClient
from PIL import Image
from safetensors import safe_open

from pti_pipeline.cli import main as command
from pti_pipeline.families import WORLD
from pti_pipeline.tracking.find import fetch, find_runs, get_run, members
from pti_pipeline.tracking.versions import fetch_bundle

ROOT = Path(__file__).parents[2]
STUDY = (
    "main --steps=6 --samples=8 --edit-seeds=1 --sample-every=3 --probes=2 "
    "--inversion-lrs=0.001,0.01 --tuning-lrs=0.0003,0.003 --regularized-lrs=0.001,0.01 --seeds=0 "
    "--preview-seeds=0"
)


def start(folder, words, **options):
    command = [sys.executable, "-m", "pti_pipeline", *words]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    environment.pop("MLFLOW_RUN_ID", None)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, **options
    )


def pti(folder, words):
    process = start(folder, words)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder and output of one whole study, which was killed in its second sweep and went on."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        first = start(folder, STUDY.split(), start_new_session=True)
        while first.poll() is None and not find_runs(step="finetune"):
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)  # all its processes
        first.communicate()
        assert first.returncode == -signal.SIGKILL
        assert [run.status for run in find_runs(step="main")] == ["RUNNING"]
        done = pti(folder, STUDY.split())
        assert done.returncode == 0, done.stderr
        assert f"Going on with run {find_runs(step='main')[0].id}" in done.stderr
        yield folder, done.stdout


@pytest.fixture(scope="module")
def chosen(study):
    """The chosen inversion, tuning, and tuning under locality."""
    inversion, light, held = find_runs(step="sweep")
    sweeps = {"invert": inversion, "finetune": light, "regularized": held}
    return {stage: get_run(sweep.tags["pti.choice"]) for stage, sweep in sweeps.items()}


def test_the_closing_table_tells_what_was_chosen(study):
    _, output = study
    assert "Trains 6 steps where the default is 1000." in output.splitlines()[0]
    assert "Takes 1 seed where the default is 3" in output.splitlines()[1]
    for word in ("learning rate", "distance", "appearance", "models:/mochi@champion", "version 1"):
        assert word in output
    assert output.splitlines()[-1].startswith("Compare:  ") and output.endswith(" ui\n")


def test_the_reference_tells_all_that_its_runs_log(study):
    runs = find_runs()
    assert {run.tags["pti.step"] for run in runs} >= {"main", "sweep", "evaluate", "select"}
    assert untold(key for run in runs for key in run.metrics) == set()
    assert untold(tag for run in runs for tag in run.tags if tag.startswith("pti.")) == set()


def test_every_value_is_within_the_range_that_the_reference_tells(study):
    """Of every run, at every step, as the store has them."""
    folder, _ = study
    with sqlite3.connect(folder / "mlflow.db") as rows:
        asked = "select run_uuid, step, key, value, is_nan from metrics"
        logged = rows.execute(asked).fetchall()
    moments = {}
    for run, step, key, value, is_nan in logged:
        moments.setdefault((run, step), {})[key] = math.nan if is_nan else value
    assert len(logged) > 500
    assert [found for each in moments.values() if (found := outside(each))] == []


def test_the_study_ends_with_its_report(study):
    _, output = study
    (main,) = find_runs(step="main")
    logged = {f.path for f in MlflowClient().list_artifacts(main.id, "report")}
    assert "report/index.html" in logged and len(logged) == 6
    place = output.split("Report:   ")[1].splitlines()[0]
    text = Path(place).read_text("utf-8")
    for run in (*find_runs(step="invert"), *find_runs(step="finetune")):
        assert run.id[:8] in text
    assert "models:/mochi@champion, version 1" in text
    assert text.count('<figure class="stop') == 12  # two grids of each of six trainings


def test_every_step_is_a_finished_flat_run_of_the_study(study):
    (main,) = find_runs(step="main")
    steps = find_runs(study=main.id)
    names = [run.tags["pti.step"] for run in steps]
    assert sorted(set(names)) == [
        "evaluate", "finetune", "invert", "register", "report", "select", "sweep",
    ]  # fmt: skip
    assert (names.count("invert"), names.count("finetune"), names.count("sweep")) == (2, 4, 3)
    assert {run.status for run in [main, *steps]} == {"FINISHED"}
    assert not any("mlflow.parentRunId" in run.tags for run in steps)


def test_members_log_every_step_and_every_distance(study):
    for sweep in find_runs(step="sweep"):
        for run in members(sweep):
            history = MlflowClient().get_metric_history(run.id, "train/loss")
            assert [m.step for m in history] == [1, 2, 3, 4, 5, 6]
            rate = float(run.params["lr"])
            assert run.metrics["distance/lr_x_steps"] == pytest.approx(6 * rate)
            for key in ("delta_norm", "log10", "path", "straightness", "efficiency"):
                assert math.isfinite(run.metrics[f"distance/{key}"])
            own = "angle" if sweep.tags["pti.stage"] == "invert" else "relative"
            assert run.metrics[f"distance/{own}"] > 0
            grids = [f.path for f in MlflowClient().list_artifacts(run.id, "images")]
            assert sum(path.endswith(".png") for path in grids) == 2
            for key in (
                "reconstruction/appearance",
                "reconstruction/ssim",
                "reconstruction/bank_gain",
                "editability/obedience",
                "leak/class_auc",
                "diversity/positions",
            ):
                assert key in run.metrics


def test_the_logged_distance_is_that_of_the_logged_embedding(chosen, tmp_path):
    from pti_pipeline.pivot import load_pivot

    pivot = load_pivot(fetch(chosen["invert"], "pivot/learned_embeds.safetensors", tmp_path))
    moved = float((pivot.embedding.double() - pivot.start.double()).norm())
    assert chosen["invert"].metrics["distance/delta_norm"] == pytest.approx(moved, rel=1e-6)


def test_the_pivot_stays_bit_identical_through_the_tuning(chosen, tmp_path):
    files = [
        fetch(run, "pivot/learned_embeds.safetensors", tmp_path / stage)
        for stage, run in chosen.items()
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert chosen["finetune"].tags["pti.pivot"] == chosen["invert"].id


def test_choices_are_explained(study, chosen):
    for run in find_runs(step="select"):
        assert any(one.name in run.tags["mlflow.note.content"] for one in chosen.values())
        names = [f.path for f in MlflowClient().list_artifacts(run.id)]
        assert {"choice.md", "sweep.png"} <= set(names)
    assert {r.tags["pti.chosen"] for r in find_runs(step="invert")} == {"yes", "no"}


def test_the_tuning_is_swept_again_with_locality_and_the_better_is_registered(study, chosen):
    _, output = study
    (main,), (made,) = find_runs(step="main"), find_runs(step="register")
    light, held = chosen["finetune"], chosen["regularized"]
    assert light.params["regularizer"] == "none" and held.params["regularizer"] == "locality"
    assert held.metrics["train/regularizer"] >= 0 and "train/regularizer" not in light.metrics
    assert light.tags["pti.pivot"] == held.tags["pti.pivot"] == chosen["invert"].id
    assert made.tags["pti.registered"] in (light.id, held.id)
    assert "locality" in main.tags["pti.preference"]
    assert f"Of the two tunings: {main.tags['pti.preference']}." in output
    assert all(s.tags["pti.sound"] == "yes" for s in find_runs(step="sweep"))


def test_what_was_measured_is_not_drawn_again(study, chosen):
    drawn = [
        {f.path for f in MlflowClient().list_artifacts(run.id, "measured")}
        for run in find_runs(step="evaluate")
    ]
    assert [len(files) for files in drawn] == [3, 2, 2]  # the class word and two runs; two; two
    again = find_runs(step="evaluate")[-1]
    metrics = get_run(chosen["finetune"].id).metrics
    assert again.params["samples"] == "8" and "leak/pivot_auc" in metrics


def test_weights_are_logged_models_with_their_numbers(study, chosen):
    found = MlflowClient().search_logged_models(["1"], "metrics.`distance/delta_norm` > 0")
    by_run = {model.source_run_id: model for model in found if model.name in ("pivot", "lora")}
    assert set(by_run) == {r.id for s in ("invert", "finetune") for r in find_runs(step=s)}
    for run in chosen.values():
        numbers = {m.key: m.value for m in by_run[run.id].metrics}
        for key in ("distance/delta_norm", "reconstruction/bank_gain", "editability/relative"):
            assert numbers[key] == run.metrics[key]


def test_runs_name_their_pictures_and_sweeps_show_them(study):
    for step in ("invert", "finetune", "evaluate", "sweep"):
        for run in find_runs(step=step):
            (found,) = MlflowClient().get_run(run.id).inputs.dataset_inputs
            assert found.dataset.name == "mochi"
    for sweep in find_runs(step="sweep"):
        assert "pictures.png" in {f.path for f in MlflowClient().list_artifacts(sweep.id)}


def test_a_study_leaves_its_views_and_its_choice_as_its_note(study):
    _, output = study
    tags = MlflowClient().get_experiment("1").tags
    assert sum(key.startswith("mlflow.sharedViewState.pti-") for key in tags) == 4
    (main,), (made,) = find_runs(step="main"), find_runs(step="register")
    first = main.tags["mlflow.note.content"].splitlines()[0]
    assert first.startswith(get_run(made.tags["pti.registered"]).name)
    assert "<mochi>" in output and "&lt;mochi>" in main.tags["mlflow.note.content"]


def test_plain_diffusers_draws_the_same_picture_as_generate(study, tmp_path):
    folder, _ = study
    prompt = "a photo of <mochi> on the beach"
    words = ["generate", f"--prompt={prompt}", "--count=2", "--seed=5", "--output=drawn"]
    done = pti(folder, words)
    assert done.returncode == 0, done.stderr
    bundle = fetch_bundle("models:/mochi@champion", tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(WORLD, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_textual_inversion(str(bundle / "learned_embeds.safetensors"))
    pipe.load_lora_weights(str(bundle))
    for seed in (5, 6):
        picture = pipe(
            prompt,
            num_inference_steps=20,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        ours = np.asarray(Image.open(folder / "drawn" / f"seed-{seed}.png")).astype(int)
        assert np.abs(np.asarray(picture).astype(int) - ours).max() <= 1
    assert (folder / "drawn" / "grid.png").is_file()


def test_the_registered_model_answers_as_a_pyfunc(study, tmp_path):
    folder, _ = study
    import pandas as pd

    model = mlflow.pyfunc.load_model("models:/mochi@champion")
    rows = pd.DataFrame({"prompt": ["a photo of <mochi> on the beach"]})
    answer = model.predict(rows, params={"seed": 5})["png"][0]
    data = base64.b64decode(answer) if isinstance(answer, str) else answer
    drawn = np.asarray(Image.open(io.BytesIO(data)))
    assert drawn.shape == (48, 48, 3)
    ours = np.asarray(Image.open(folder / "drawn" / "seed-5.png")).astype(int)
    gap = np.abs(drawn.astype(int) - ours)
    assert gap.max() <= 1  # drawn alone here, beside another there: sums round otherwise
    assert gap.mean() < 0.01


def test_the_registered_version_is_exported_with_what_its_run_told(study):
    folder, _ = study
    done = CliRunner().invoke(command, ["export", "--form=kohya,embedding"])
    assert done.exit_code == 0, done.output
    run = get_run(find_runs(step="register")[0].tags["pti.registered"])
    with safe_open(folder / "exported" / "mochi-lora.safetensors", "pt") as file:
        header = file.metadata()
    moved = float(header["pti.tuning.distance.delta_norm"])
    assert moved == pytest.approx(run.metrics["distance/delta_norm"], rel=1e-5)
    assert (header["pti.tuning.run"], header["ss_max_train_steps"]) == (run.id, "6")
    assert (folder / "exported" / "mochi.safetensors").is_file()


def test_registering_again_makes_no_second_version(study):
    run = find_runs(step="register")[0].tags["pti.registered"]
    done = CliRunner().invoke(command, ["register", f"--run={run}", "--alias=candidate"])
    assert "version 1." in done.output
    client = MlflowClient()
    assert len(client.search_model_versions("name='mochi'")) == 1
    found = client.get_model_version_by_alias("mochi", "candidate")
    assert found.version == client.get_model_version_by_alias("mochi", "champion").version
    assert found.tags["pti.run"] == run
    assert float(found.tags["distance.delta_norm"]) > 0


def test_the_bundle_holds_no_pickle(study, tmp_path):
    bundle = fetch_bundle("models:/mochi@champion", tmp_path)
    names = {p.name for p in bundle.parents[1].rglob("*") if p.is_file()}
    assert not any(n.endswith((".pkl", ".pt", ".bin", ".pth")) for n in names)
    assert json.loads((bundle / "bundle.json").read_text())["token"] == "<mochi>"


@pytest.mark.slow
def test_a_single_inversion_and_tuning_of_other_pictures(study, pictures):
    folder, _ = study
    done = pti(
        folder,
        [
            "invert",
            f"--images={pictures}",
            "--token=<x>",
            "--initializer=cat",
            "--vectors=2",
            "--steps=2",
            "--lr=0.002",
            "--seed=3",
        ],
    )
    assert done.returncode == 0, done.stderr
    run = done.stdout.split("run ")[1].split(".")[0]
    done = pti(folder, ["finetune", f"--pivot={run}", "--steps=2", "--rank=2", "--seed=3"])
    assert done.returncode == 0, done.stderr
    tuned = get_run(done.stdout.split("run ")[1].split(".")[0])
    assert tuned.name == "finetune lr=0.0003 seed=3"
    assert tuned.tags["pti.token"] == "<x>" and "pti.sweep" not in tuned.tags
    done = pti(folder, ["evaluate", f"--run={tuned.id}", "--samples=8", "--edit-seeds=1"])
    assert done.returncode == 0, done.stderr
    assert "leak/pivot_auc" in get_run(tuned.id).metrics


@pytest.mark.slow
def test_a_study_whose_tuning_is_one_runs_checkpoints(tmp_path, monkeypatch):
    words = STUDY.replace("--steps=6", "--steps=12").split()
    done = pti(tmp_path, [*words, "--curve=one-run"])
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    sweep, _ = find_runs(step="sweep", stage="finetune")  # the other one is regularized
    runs = sorted(members(sweep), key=lambda run: int(run.params["steps"]))
    assert [run.params["steps"] for run in runs] == ["1", "2", "3", "6", "12"]
    assert len({run.params["lr"] for run in runs}) == 1
    moved = [run.metrics["distance/delta_norm"] for run in runs]
    assert moved == sorted(moved)
    assert all("leak/pivot_auc" in run.metrics for run in runs)
    assert sweep.tags["pti.choice"] in {run.id for run in runs}


@pytest.mark.slow
def test_a_second_tuning_that_diverges_leaves_the_light_one_registered(tmp_path, monkeypatch):
    words = STUDY.replace("--regularized-lrs=0.001,0.01", "--regularized-lrs=1e6,1e7").split()
    done = pti(tmp_path, words)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (main,), (made,) = find_runs(step="main"), find_runs(step="register")
    assert main.status == "FINISHED"
    assert main.tags["pti.preference"] == "with locality everything diverged or collapsed"
    assert get_run(made.tags["pti.registered"]).params["regularizer"] == "none"


@pytest.mark.parametrize("words", ["--regularizer=weight-ball", "--kappa=0", "--alpha=0"])
def test_what_a_study_can_not_use_is_told_before_it_begins(store, words):
    result = CliRunner().invoke(command, ["main", "--images", str(ROOT / "examples/mochi"), words])
    assert result.exit_code == 2 and "error[E2" in result.output
    assert find_runs() == []
