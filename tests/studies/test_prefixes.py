"""One run as a curve: experiments that differ in their steps are parts of one training."""

import math

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from pti_pipeline.pivot import load_pivot
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, FinetuneSettings, InvertSettings
from pti_pipeline.studies.packs import Pack, train
from pti_pipeline.tracking.find import fetch, find_runs

STEPS = (2, 5, 9)


def trained(store, least_folder, pictures, settings, sweep):
    subject = {"images": str(pictures), "token": "<c>", "initializer": "cat"}
    stage = "invert" if isinstance(settings[0], InvertSettings) else "finetune"
    where, watch = BaseSettings(str(least_folder), "cpu"), WatchSettings(4, 3)
    train(Pack(stage, where, subject, tuple(settings), watch, sweep=sweep, varied="steps"))
    return find_runs(sweep=sweep)


def steps_of(run, key):
    return [m.step for m in MlflowClient().get_metric_history(run.id, key)]


@pytest.fixture
def curve(store, least_folder, pictures):
    settings = [InvertSettings(lr=0.01, steps=n) for n in STEPS]
    return trained(store, least_folder, pictures, settings, "curve")


def test_each_experiment_is_what_it_would_be_alone(store, least_folder, pictures, curve, tmp_path):
    assert [run.params["steps"] for run in curve] == [str(n) for n in STEPS]
    for run, steps in zip(curve, STEPS, strict=True):
        settings = [InvertSettings(lr=0.01, steps=steps)]
        (alone,) = trained(store, least_folder, pictures, settings, f"alone{steps}")
        files = [
            fetch(r, "pivot/learned_embeds.safetensors", tmp_path / r.id) for r in (run, alone)
        ]
        assert torch.equal(*(load_pivot(file).embedding for file in files))
        for key in ("train/loss", "distance/delta_norm", "twins/appearance"):
            assert run.metrics[key] == alone.metrics[key]


def test_each_experiment_is_logged_up_to_its_own_end(curve):
    for run, steps in zip(curve, STEPS, strict=True):
        assert steps_of(run, "train/loss") == list(range(1, steps + 1))
        assert steps_of(run, "distance/log10")[-1] == steps
        assert steps_of(run, "distance/function")[-1] == steps
        assert run.tags["pti.outcome"] == "finished" and "pti.stopped_step" not in run.tags
        grids = [f.path for f in MlflowClient().list_artifacts(run.id, "images")]
        drawn = {4, 8, *STEPS} & set(range(1, steps + 1))
        assert sum(path.endswith(".png") for path in grids) == len(drawn)


def test_tunings_share_a_training_too(store, least_folder, pictures, curve, tmp_path):
    settings = [FinetuneSettings(lr=0.01, steps=n, pivot=curve[-1].id) for n in STEPS]
    runs = trained(store, least_folder, pictures, settings, "tuned")
    moved = [run.metrics["distance/delta_norm"] for run in runs]
    assert moved == sorted(moved) and moved[0] > 0
    (alone,) = trained(store, least_folder, pictures, settings[1:2], "single")
    files = [
        fetch(r, "lora/pytorch_lora_weights.safetensors", tmp_path / r.id) for r in (runs[1], alone)
    ]
    ours, theirs = (load_file(file) for file in files)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_training_that_diverges_leaves_what_ended_before(store, least_folder, pictures):
    settings = [InvertSettings(lr=0.3, steps=n) for n in (1, 60)]
    early, late = trained(store, least_folder, pictures, settings, "wild")
    assert late.tags["pti.outcome"] == "diverged"
    assert int(late.tags["pti.diverged_step"]) > 1
    assert early.tags["pti.outcome"] == "finished"
    assert math.isfinite(early.metrics["distance/delta_norm"])
