"""Sweeps on a tiny model: packs, shapes, diverging members, workers that die."""

import os
import signal
import socket
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import active_children

import psutil
import pytest
import torch
from mlflow import MlflowClient

from pti_pipeline.errors import DivergedError, ModelError, UsageError
from pti_pipeline.pivot import load_pivot
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, FinetuneSettings, InvertSettings
from pti_pipeline.studies import local
from pti_pipeline.studies import sweep as sweeps
from pti_pipeline.studies.cluster import run_ray
from pti_pipeline.studies.packs import Pack, split, train
from pti_pipeline.studies.sweep import Executor, sweep
from pti_pipeline.tracking.find import fetch, find_runs, get_run, members
from pti_pipeline.values import experiments, parse_vary


@pytest.fixture
def whole(store, least_folder, pictures):
    subject = {"images": str(pictures), "token": "<c>", "initializer": "cat"}
    runs = tuple(InvertSettings(lr, steps=3, batch_size=2) for lr in (0.001, 0.01))
    base = BaseSettings(str(least_folder), "cpu")
    return Pack("invert", base, subject, runs, WatchSettings(0, 0))


@pytest.fixture
def here(monkeypatch):
    """Packs are as for one worker, and trained one after the other in this process."""

    def train_all(packs, waiting):
        for pack in packs:
            train(pack)

    monkeypatch.setattr(sweeps, "workers", lambda: 1)
    monkeypatch.setattr(sweeps, "hired", lambda packs: nullcontext([]))
    monkeypatch.setattr(sweeps, "run_local", train_all)


def pivots(run_id, folder):
    found = {m.params["lr"]: m for m in members(get_run(run_id)) if m.status == "FINISHED"}
    return {
        lr: load_pivot(fetch(m, "pivot/learned_embeds.safetensors", folder / m.id)).embedding
        for lr, m in found.items()
    }


def test_a_pack_survives_json(whole):
    assert Pack.from_json(whole.to_json()) == whole
    tuning = replace(whole, stage="finetune", experiments=(FinetuneSettings(rank=8),))
    assert Pack.from_json(tuning.to_json()) == tuning


@pytest.mark.parametrize(("count", "workers", "sizes"), [(5, 2, [2, 3]), (2, 4, [1, 1])])
def test_experiments_of_one_shape_are_shared_out(count, workers, sizes):
    runs = [InvertSettings(0.1 * (i + 1)) for i in range(count)]
    packs = split(runs, workers)
    assert [len(p) for p in packs] == sizes
    assert [e for p in packs for e in p] == runs


def test_shapes_are_never_mixed():
    vary = parse_vary("rank:4,8", FinetuneSettings)
    runs = experiments((0.1, 0.2), (0, 1), vary, FinetuneSettings())
    assert len(runs) == 8
    for workers in (1, 2, 3, 8):
        packs = split(runs, workers)
        assert all(len({e.rank for e in pack}) == 1 for pack in packs)
        assert sorted(map(repr, (e for p in packs for e in p))) == sorted(map(repr, runs))


def test_packs_in_processes_give_what_one_pack_gives(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "workers", lambda: 1)
    together = sweep(whole, Executor())
    monkeypatch.setattr(sweeps, "workers", lambda: 2)
    apart = sweep(whole, Executor())
    one, two = pivots(together, tmp_path / "a"), pivots(apart, tmp_path / "b")
    assert set(one) == set(two) == {"0.001", "0.01"}
    for lr, value in one.items():
        torch.testing.assert_close(value, two[lr], rtol=1e-4, atol=1e-6)
    assert {m.tags["pti.pack"] for m in members(get_run(apart))} == {"1/2", "2/2"}
    for member in members(get_run(apart)):
        assert member.metrics["train/pack_seconds_per_step"] > 0


def test_processes_that_wait_for_packs_are_ended_when_the_check_fails(whole, monkeypatch):
    for place in (sweeps, local):
        monkeypatch.setattr(place, "workers", lambda: 2)
    with pytest.raises(UsageError, match="E210"):
        sweep(tuned_around(["0" * 32, "1" * 32], whole), Executor())
    assert active_children() == []
    assert find_runs() == []


def test_a_varied_setting_has_its_own_pack_and_name(whole, here):
    vary = parse_vary("vectors:1,2", InvertSettings)
    runs = experiments((0.01,), (0,), vary, whole.experiments[0])
    run = sweep(replace(whole, experiments=tuple(runs), varied="vectors"), Executor())
    names = {m.name for m in members(get_run(run))}
    assert names == {f"invert lr=0.01 seed=0 vectors={n}" for n in (1, 2)}
    assert get_run(run).params["vary"] == "vectors:1,2"


def test_optimizers_are_arms_of_a_sweep(whole, here):
    vary = parse_vary("optimizer:adam,prodigy", InvertSettings)
    runs = experiments((0.01,), (0,), vary, whole.experiments[0])
    run = sweep(replace(whole, experiments=tuple(runs), varied="optimizer"), Executor())
    found = {m.params["optimizer"]: m for m in members(get_run(run))}
    names = {name: m.name for name, m in found.items()}
    assert names == {o: f"invert lr=0.01 seed=0 optimizer={o}" for o in ("adam", "prodigy")}
    assert found["adam"].metrics["train/lr"] == pytest.approx(0.01)
    assert 0.99e-8 <= found["prodigy"].metrics["train/lr"] < 1e-3
    for m in found.values():
        assert m.metrics["distance/lr_x_steps"] <= 3.0001 * m.metrics["train/lr"]
    assert get_run(run).params["vary"] == "optimizer:adam,prodigy"
    assert "optimizer" not in get_run(run).params


def test_decays_share_a_pack_and_what_shapes_a_pass_does_not():
    many = [FinetuneSettings(weight_decay=w, ema=e) for w in (0.0, 0.1) for e in (0.0, 0.9)]
    assert len(split(many, 1)) == 1
    for options in ({"optimizer": "prodigy"}, {"micro_batch": 1}, {"checkpointing": True}):
        assert len(split([FinetuneSettings(), FinetuneSettings(**options)], 1)) == 2


def tuned_around(pivots, whole, **options):
    runs = tuple(FinetuneSettings(pivot=p, lr=0.01, steps=3, batch_size=2) for p in pivots)
    subject = {"images": ""}
    return replace(whole, stage="finetune", subject=subject, experiments=runs, **options)


def test_tunings_around_several_pivots_share_a_pass(whole, here, tmp_path):
    near, far = members(get_run(sweep(whole, Executor())))
    run = sweep(tuned_around([near.id, far.id], whole, varied="pivot"), Executor())
    found = members(get_run(run))
    assert [m.tags["pti.pivot"] for m in found] == [near.id, far.id]
    assert {m.name for m in found} == {
        f"finetune lr=0.01 seed=0 pivot={p.id[:8]}" for p in (near, far)
    }
    assert {m.tags["pti.pack"] for m in found} == {"1/1"}
    assert get_run(run).params["pivot"] == f"{near.id},{far.id}"
    for mine, inversion in zip(found, (near, far), strict=True):
        ours, theirs = (
            load_pivot(fetch(r, "pivot/learned_embeds.safetensors", tmp_path / r.id)).embedding
            for r in (mine, inversion)
        )
        assert torch.equal(ours, theirs)


def test_weights_of_a_regularizer_share_a_pass_and_regularizers_do_not(whole, here):
    near = members(get_run(sweep(whole, Executor())))[0]
    common = FinetuneSettings(
        0.01, steps=3, batch_size=2, pivot=near.id, reg_bank=4, reg_latents="training"
    )
    packs = {"regularizer:none,locality": "1/2 2/2", "reg_weight:0.1,10": "1/1 1/1"}
    for text, names in packs.items():
        vary = parse_vary(text, FinetuneSettings)
        held = replace(common, regularizer="class-preservation")
        runs = tuple(experiments((0.01,), (0,), vary, held))
        pack = tuned_around([near.id], whole, varied=vary[0])
        summary = get_run(sweep(replace(pack, experiments=runs), Executor()))
        found = members(summary)
        assert sorted(m.tags["pti.pack"] for m in found) == names.split()
        assert summary.params["vary"] == text
        for member in found:
            with_term = member.params["regularizer"] != "none"
            assert ("train/regularizer" in member.metrics) == with_term
        assert {m.name.rsplit("=")[-1] for m in found} == set(text.partition(":")[2].split(","))
        assert found[0].params["kappa"] == "0.5" and found[0].params["reg_every"] == "1"


def test_pivots_of_different_tokens_or_lengths_do_not_share_a_pass(whole, here):
    first = sweep(whole, Executor())
    longer = tuple(replace(e, vectors=2) for e in whole.experiments[:1])
    second = sweep(replace(whole, experiments=longer), Executor())
    ids = [members(get_run(run))[0].id for run in (first, second)]
    with pytest.raises(UsageError, match="E221"):
        sweep(tuned_around(ids, whole), Executor())
    elsewhere = tuned_around(ids[:1], replace(whole, where=BaseSettings("world", "cpu")))
    with pytest.raises(ModelError, match="E404"):
        sweep(elsewhere, Executor())
    assert len(find_runs(step="sweep")) == 2


def test_a_member_that_diverges_is_marked_and_the_others_end(whole, here):
    runs = tuple(InvertSettings(lr, steps=3, batch_size=2) for lr in (0.001, 1e6))
    run = sweep(replace(whole, experiments=runs), Executor())
    found = {m.params["lr"]: m for m in members(get_run(run))}
    assert found["0.001"].tags["pti.outcome"] == "finished"
    ill = found["1000000.0"]
    assert ill.tags["pti.outcome"] == "diverged" and ill.tags["pti.diverged_step"] == "1"
    assert MlflowClient().get_metric_history(ill.id, "train/loss") == []
    assert not [f.path for f in MlflowClient().list_artifacts(ill.id) if f.path == "pivot"]
    with pytest.raises(DivergedError, match="E901"):
        sweep(replace(whole, experiments=runs[1:]), Executor())


def kill_a_child_when(there):
    """Kill one worker of this process as soon as a run of its is open."""

    def work():
        for _ in range(600):
            time.sleep(0.1)
            if there():
                own = [child.pid for child in active_children()]
                family = psutil.Process().children(recursive=True)
                rays = [c.pid for c in family if any("ray::_attempt" in w for w in c.cmdline())]
                for pid in [*own, *rays][:1]:
                    os.kill(pid, signal.SIGKILL)
                    return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_worker_that_is_killed_is_replaced(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "workers", lambda: 2)
    monkeypatch.setattr(local, "workers", lambda: 1)
    runs = tuple(replace(e, steps=60) for e in whole.experiments)
    thread = kill_a_child_when(lambda: bool(find_runs(step="invert")))
    run = sweep(replace(whole, experiments=runs), Executor())
    thread.join()
    ended = [m.status for m in members(get_run(run))]
    assert sorted(ended) == ["FINISHED", "FINISHED"]  # the killed one's run went on
    assert len(pivots(run, tmp_path)) == 2


@pytest.mark.ray
def test_ray_gives_the_same_and_replaces_a_worker(whole, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    runs = tuple(replace(e, steps=60) for e in whole.experiments)
    packs = replace(whole, experiments=runs)
    here = sweep(packs, Executor())
    monkeypatch.setattr(sweeps, "workers", lambda: 2)
    known = {m.id for m in find_runs(step="invert")}
    thread = kill_a_child_when(lambda: {m.id for m in find_runs(step="invert")} - known)
    there = sweep(packs, Executor("ray"))
    thread.join()
    one, two = pivots(here, tmp_path / "a"), pivots(there, tmp_path / "b")
    assert set(one) == set(two) == {"0.001", "0.01"}
    for lr, value in one.items():
        torch.testing.assert_close(value, two[lr], rtol=1e-3, atol=1e-5)
    assert [m.status for m in members(get_run(there))] == ["FINISHED"] * 2


def test_a_ray_address_that_does_not_answer(whole):
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    for address in (f"127.0.0.1:{port}", "nowhere"):
        with pytest.raises(UsageError, match="E220"):
            run_ray([whole], address)
    assert time.monotonic() - start < 15
