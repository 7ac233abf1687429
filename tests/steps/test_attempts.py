"""What was interrupted goes on in its own runs; what was not, or is another thing, does not."""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from pti_pipeline import checkpoint
from pti_pipeline.errors import DivergedError, LockedError, ModelError, UsageError
from pti_pipeline.pivot import load_pivot
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, FinetuneSettings, InvertSettings
from pti_pipeline.steps import attempts, resuming
from pti_pipeline.steps.attempts import Attempt, Within, place, tidy
from pti_pipeline.steps.finetune import run_finetunings
from pti_pipeline.steps.invert import run_inversions
from pti_pipeline.steps.prepared import prepare_finetuning, prepare_inversion
from pti_pipeline.studies import sweep as sweeps
from pti_pipeline.studies.packs import Pack, train
from pti_pipeline.studies.sweep import Executor, sweep
from pti_pipeline.tracking.find import fetch, find_runs, get_run, members
from pti_pipeline.tracking.life import DEAD, HEARTBEAT, HOST, PLACE, silent
from pti_pipeline.tracking.lost import sync
from pti_pipeline.tracking.outbox import Outbox, left_ones, outbox_root
from pti_pipeline.tracking.runs import CONTINUES, open_run
from pti_pipeline.tracking.store import connect, local_folder, store_uri

PIVOT, LORA = "pivot/learned_embeds.safetensors", "lora/pytorch_lora_weights.safetensors"
SETTINGS = InvertSettings(0.01, steps=120, batch_size=2)
WATCH = WatchSettings(sample_every=70, probes=3)


@pytest.fixture
def ready(store, least_folder, pictures):
    return prepare_inversion(BaseSettings(str(least_folder), "cpu"), pictures, "<c>", "cat")


@contextmanager
def interrupted(at, monkeypatch):
    """Keep a checkpoint at every 50th step, and be interrupted once that of step ``at`` is kept."""
    save = checkpoint.save

    def stopping(folder, step, *rest):
        save(folder, step, *rest)
        if step == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(resuming, "PAUSE", 0.0)
        patch.setattr(checkpoint, "save", stopping)
        yield


def invert(ready, resume="auto", settings=SETTINGS, **more):
    return run_inversions(ready, [settings], WATCH, resume=resume, **more)[0]


def logged(run_id):
    """Every number of a run that does not tell time, by key and step; twice if it is there so."""
    timed = ("system/", "train/pack_seconds")
    keys = [key for key in get_run(run_id).metrics if not key.startswith(timed)]
    history = {key: MlflowClient().get_metric_history(run_id, key) for key in keys}
    return {k: sorted((m.step, float(m.value).hex()) for m in rows) for k, rows in history.items()}


def learned(run_id, folder):
    return load_pivot(fetch(get_run(run_id), PIVOT, folder / run_id)).embedding


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(ready, monkeypatch, tmp_path, capsys):
    with interrupted(100, monkeypatch):
        invert(ready)
    (killed,) = find_runs(step="invert")
    assert killed.status == "KILLED" and place(killed.id).is_dir()
    assert "Going on" not in capsys.readouterr().err
    again = invert(ready)
    assert again == killed.id
    assert f"Going on with run {again} at step 100\n" in capsys.readouterr().err
    whole = invert(ready, "no")
    assert whole != again and get_run(again).status == get_run(whole).status == "FINISHED"
    assert logged(again) == logged(whole) and len(logged(again)["train/loss"]) == 120
    assert torch.equal(learned(again, tmp_path), learned(whole, tmp_path))
    assert not place(again).exists()
    shown = [f.path for f in MlflowClient().list_artifacts(again, "images")]
    assert sorted(p.split("+")[2] for p in shown) == ["120", "120", "70", "70"]


def test_a_finished_or_diverged_run_does_not_go_on(ready):
    first = invert(ready, settings=replace(SETTINGS, steps=2))
    assert invert(ready, settings=replace(SETTINGS, steps=2)) != first
    with pytest.raises(UsageError, match=r"E281.*is finished"):
        invert(ready, first, replace(SETTINGS, steps=2))
    lost = replace(SETTINGS, lr=1e20, steps=60)
    for _ in range(2):
        with pytest.raises(DivergedError, match="E901"):
            invert(ready, settings=lost)
    diverged = [run for run in find_runs(step="invert") if run.status == "FAILED"]
    assert len(diverged) == 2 and not place(diverged[0].id).exists()
    with pytest.raises(UsageError, match=r"E281.*is diverged"):
        invert(ready, diverged[0].id, lost)


def test_other_settings_pictures_or_base_are_told(
    ready, monkeypatch, tmp_path, tiny_epsilon_folder, pictures
):
    with interrupted(50, monkeypatch):
        invert(ready)
    (killed,) = find_runs(step="invert")
    other = replace(SETTINGS, lr=0.02, seed=3)
    with pytest.raises(UsageError, match=r"E282.*lr: 0.01 there, 0.02 here; seed: 0 .*, 3 here"):
        invert(ready, killed.id, other)
    folder = tmp_path / "others"
    folder.mkdir()
    Image.new("RGB", (20, 20)).save(folder / "a.png")
    where = ready.where
    with pytest.raises(UsageError, match=r"E282.*other pictures: \w+ there, \w+ here"):
        invert(prepare_inversion(where, folder, "<c>", "cat"), killed.id)
    based = replace(where, base=str(tiny_epsilon_folder))
    with pytest.raises(UsageError, match=r"E282.*other base model: \w+ there, \w+ here\. Hint"):
        invert(prepare_inversion(based, pictures, "<c>", "cat"), killed.id)
    assert [run.status for run in find_runs(step="invert")] == ["KILLED"]  # none was made
    assert invert(ready, killed.id) == killed.id


FACTS = {"step": "x"}


def tags_of(facts):
    whole = {**facts, "version": attempts.__version__, "torch": torch.__version__}
    return Attempt((whole,), (None,)).tags[0]


def test_a_run_that_is_being_written_here_is_left_alone(ready):
    with open_run("r", {}, {"pti.step": "x", **tags_of(FACTS)}):
        with pytest.raises(LockedError, match=r"E701.*written by process \d+ on \S+\. Hint: wait"):
            attempts.attempt([FACTS])
        with pytest.raises(LockedError, match="E701"):
            attempts.attempt([FACTS], within=Within(sweep="a"))
        assert attempts.attempt([FACTS], "no").runs == (None,)


def test_a_run_that_is_written_elsewhere_is_left_alone_as_long_as_it_lives(ready):
    """Also on a machine of this name: it may be another user's, or a container's."""
    client = connect()
    beat, host = {HEARTBEAT: str(int(time.time()))}, {HOST: socket.gethostname(), PLACE: "other"}
    with open_run("r", {}, {"pti.step": "x"}) as run:
        place = client.get_run(run.id).info.experiment_id
    elsewhere = client.create_run(place, tags={**tags_of(FACTS), **host, **beat}).info.run_id
    with pytest.raises(LockedError, match=r"E701.*a process on \S+\. Hint: wait"):
        attempts.attempt([FACTS])
    assert attempts.attempt([FACTS], within=Within(sweep="a")).runs[0].id == elsewhere
    client.set_tag(elsewhere, HEARTBEAT, str(int(time.time()) - DEAD - 1))
    found = attempts.attempt([FACTS])
    assert found.runs[0].id == elsewhere
    with open_run("r", {}, found.tags[0], earlier=found.earlier[0]) as run:
        tags = get_run(run.id).tags  # from now on it is ours
        assert tags[PLACE] != "other" and not silent(get_run(run.id))


BEGINS = """
import sys, time
from pti_pipeline.steps.attempts import attempt
attempt([{"step": "x"}])
print("begun", flush=True)
time.sleep(60)
"""


def test_of_two_that_begin_at_once_one_is_told(ready):
    with subprocess.Popen([sys.executable, "-c", BEGINS], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(LockedError, match=r"E701.*begins with these very settings"):
            attempts.attempt([FACTS])
        tidy()
        locks = list(local_folder(store_uri(), "attempts").iterdir())
        assert len(locks) == 1
        process.kill()
    tidy()
    assert not locks[0].exists()
    attempts.attempt([FACTS]).release()


def test_what_was_left_of_a_run_that_goes_on_elsewhere_is_let_go(ready, monkeypatch):
    with interrupted(50, monkeypatch):
        invert(ready)
    (run,) = find_runs(step="invert")
    box = Outbox(outbox_root(store_uri()), run.id)  # as if the store had been away at the end
    box.put("metrics", [["train/loss", 1.0, 1, 50]])
    box.put("end", {"status": "KILLED", "time": 1})
    box.close()
    connect().set_tag(run.id, PLACE, "other")
    connect().update_run(run.id, status="RUNNING")
    assert sync().entries == 0
    assert get_run(run.id).status == "RUNNING" and len(logged(run.id)["train/loss"]) == 50
    assert not left_ones(outbox_root(store_uri()))


def test_the_thread_count_is_that_of_the_checkpoint(ready, monkeypatch):
    few = replace(SETTINGS, steps=52)  # two threads are slow on busy cores
    with interrupted(50, monkeypatch):
        invert(ready, settings=few)
    (killed,) = find_runs(step="invert")
    kept = checkpoint.newest(place(killed.id))
    assert kept.facts["threads"] == 1
    checkpoint.save(place(killed.id), 50, kept.tensors, {**kept.facts, "threads": 2})
    invert(ready, settings=few)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("at_distance", ["stop", pytest.param("project", marks=pytest.mark.slow)])
def test_a_training_with_a_bound_goes_on_to_the_same_place(ready, monkeypatch, at_distance):
    free = invert(ready)
    history = MlflowClient().get_metric_history(free, "distance/delta_norm")
    bound = next(m.value for m in history if m.step == 60)
    settings = replace(SETTINGS, until_distance=bound, at_distance=at_distance)
    with interrupted(50, monkeypatch):
        invert(ready, settings=settings)
    again, whole = invert(ready, settings=settings), invert(ready, "no", settings)
    assert logged(again) == logged(whole) and len(find_runs(step="invert")) == 3
    ends = [get_run(run).tags.get("pti.stopped_step") for run in (again, whole)]
    assert ends == (["60"] * 2 if at_distance == "stop" else [None] * 2)


def test_other_masks_are_other_settings(ready, monkeypatch, tmp_path):
    with interrupted(50, monkeypatch):
        invert(ready)
    (killed,) = find_runs(step="invert")
    folder = tmp_path / "masked"
    shutil.copytree(ready.images, folder)
    for path in [*folder.glob("?.png")]:
        mask = Image.open(path).convert("L").point(lambda v: 255 if v > 99 else 0)
        mask.save(path.with_name(f"{path.stem}-mask.png"))
    masked = prepare_inversion(ready.where, folder, "<c>", "cat")
    assert masked.subject.fingerprint == ready.subject.fingerprint
    with pytest.raises(UsageError, match=r"E282.*other twins: \w+ there, \w+ here\. Hint"):
        invert(masked, killed.id)


def test_pictures_may_move_meanwhile(ready, monkeypatch, tmp_path):
    with interrupted(50, monkeypatch):
        invert(ready)
    moved = shutil.copytree(ready.images, tmp_path / "moved")
    again = invert(prepare_inversion(ready.where, moved, "<c>", "cat"))
    (run,) = find_runs(step="invert")
    assert run.id == again and run.tags["pti.images"] == str(moved)


@pytest.mark.slow
def test_a_curve_goes_on_with_what_has_ended_and_what_has_diverged(ready, monkeypatch, tmp_path):
    first = invert(ready, settings=replace(SETTINGS, steps=5))
    common = FinetuneSettings(pivot=first, steps=120, batch_size=2, rank=2)
    runs = [replace(common, lr=0.003, steps=n) for n in (30, 120)] + [replace(common, lr=1e20)]
    tuning = prepare_finetuning(ready.where, runs, None)
    places = Within(sweep="a" * 32, pack="1/1"), Within(sweep="b" * 32, pack="1/1")
    with interrupted(50, monkeypatch):
        run_finetunings(tuning, runs, WATCH, places[0])
    again = run_finetunings(tuning, runs, WATCH, places[0])
    whole = run_finetunings(tuning, runs, WATCH, places[1])
    for one, other in zip(again, whole, strict=True):
        assert logged(one) == logged(other)
        outcomes = [get_run(run).tags["pti.outcome"] for run in (one, other)]
        assert outcomes[0] == outcomes[1] and get_run(one).status == "FINISHED"
        stops = [get_run(run).tags.get("pti.diverged_step") for run in (one, other)]
        assert stops[0] == stops[1]
    for pair in zip(again[:2], whole[:2], strict=True):
        one, other = (fetch(get_run(run), LORA, tmp_path / run).read_bytes() for run in pair)
        assert one == other
    assert run_finetunings(tuning, runs, WATCH, places[0]) == again  # a sweep's are not done again


@pytest.mark.slow
def test_a_sweep_goes_on_in_as_many_packs_as_before(ready, monkeypatch):
    monkeypatch.setattr(sweeps, "workers", lambda: 1)
    few = replace(SETTINGS, steps=3)
    runs = tuple(replace(few, lr=lr, vectors=n) for n in (1, 2) for lr in (0.001, 0.01))
    subject = {"images": str(ready.images), "token": "<c>", "initializer": "cat"}
    whole = Pack("invert", ready.where, subject, runs, WATCH)
    trained = []

    def here(packs, waiting):
        """Train packs in this process, at first one alone."""
        for pack in packs:
            trained.append(pack.name)
            train(pack)
            if len(trained) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "run_local", here)
    with pytest.raises(KeyboardInterrupt):
        sweep(whole, Executor())
    (killed,) = find_runs(step="sweep")
    done = {m.id for m in members(killed)}
    assert killed.status == "KILLED" and len(done) == 2
    monkeypatch.setattr(sweeps, "workers", lambda: 4)
    monkeypatch.setattr(sweeps, "hired", lambda packs: nullcontext([]))
    assert sweep(whole, Executor()) == killed.id
    assert trained == ["1/2", "1/2", "2/2"]
    found = members(get_run(killed.id))
    assert {m.status for m in found} == {"FINISHED"}
    assert len(found) == 4 and done < {m.id for m in found}
    assert sweep(whole, Executor()) != killed.id  # it is finished: a new one
    with open_run("study", {}, {"pti.step": "main"}) as study:
        inside = replace(whole, study=study.id)
    assert sweep(inside, Executor()) == sweep(inside, Executor())  # of a study it is not done again


def test_the_run_that_mlflow_made_says_what_goes_on_instead(ready, monkeypatch):
    with interrupted(50, monkeypatch):
        invert(ready)
    (killed,) = find_runs(step="invert")
    made = connect().create_run(connect().get_run(killed.id).info.experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    assert invert(ready) == killed.id
    tags = connect().get_run(made.info.run_id).data.tags
    assert tags[CONTINUES] == killed.id and tags["mlflow.runName"].startswith("goes on: invert")


def test_a_state_that_lacks_something_is_refused(ready, monkeypatch):
    with interrupted(100, monkeypatch):
        invert(ready)
    (killed,) = find_runs(step="invert")
    kept = checkpoint.newest(place(killed.id))
    for name in kept.tensors:
        rest = {k: v for k, v in kept.tensors.items() if k != name}
        checkpoint.save(place(killed.id), 100, rest, kept.facts)
        with pytest.raises(ModelError, match=f"E428.*lacks {name}"):
            invert(ready)
    assert get_run(killed.id).status == "FAILED"
    checkpoint.save(place(killed.id), 100, kept.tensors, kept.facts)
    assert invert(ready) == killed.id


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(ready, monkeypatch, tmp_path):
    with interrupted(100, monkeypatch):
        invert(ready)
    (killed,) = find_runs(step="invert")
    file = place(killed.id) / "step-00000100" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="step-00000100.*passed over"):
        again = invert(ready)
    whole = invert(ready, "no")
    assert again == killed.id and logged(again) == logged(whole)
    assert torch.equal(learned(again, tmp_path), learned(whole, tmp_path))


def test_what_nobody_needs_is_tidied_away(ready, monkeypatch):
    with interrupted(50, monkeypatch):
        invert(ready)
    (killed,) = find_runs(step="invert")
    done = invert(ready, "no", replace(SETTINGS, steps=2))
    for name in (done, "0" * 32):
        checkpoint.save(place(name), 0, {}, {})
    tidy()
    assert [path.name for path in place("x").parent.iterdir()] == [killed.id]


def test_a_part_whose_process_died_right_after_its_end_leaves_nothing(ready, monkeypatch):
    part = {"settings": replace(SETTINGS, steps=2), "within": Within(study="0" * 32)}
    with monkeypatch.context() as patch:
        patch.setattr("pti_pipeline.tracking.outbox._remove", lambda folder: None)
        patch.setattr("pti_pipeline.steps.under_way.forget", lambda runs: None)
        done = invert(ready, **part)
    assert place(done).exists() and left_ones(outbox_root(store_uri())) == [done]
    assert invert(ready, **part) == done  # it is not trained again
    assert not place(done).exists() and not left_ones(outbox_root(store_uri()))
