"""Choosing among a sweep's runs, in a real store."""

import math

import pytest
from mlflow import MlflowClient
from stores import store_in

from pti_pipeline.errors import DivergedError, UsageError
from pti_pipeline.steps.select import select
from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.runs import open_run

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RISE = (0.002, 0.010, 0.026, 0.038, 0.040, 0.040)
AUCS = (0.50, 0.51, 0.50, 0.60, 0.75, 0.80)


def logged(name, params, tags, metrics=()):
    with open_run(name, params, tags) as run:
        run.log_metrics(dict(metrics))
    return run.id


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all of these tests: they look at the sweeps that they make."""
    folder = tmp_path_factory.mktemp("store")
    with store_in(folder):
        yield folder


@pytest.fixture
def sweep(store):
    """Make a sweep, and give a function that adds runs to it."""

    def make(stage="invert", samples=256, **params):
        run = logged(f"sweep {stage}", params, {"pti.step": "sweep", "pti.stage": stage})
        evaluated = {"pti.step": "evaluate", "pti.evaluated": run}
        logged("evaluate", {"samples": samples}, evaluated)
        return run

    return make


def member(sweep, stage, lr, seed=0, outcome="finished", pivot="", params=(), **metrics):
    tags = {"pti.step": stage, "pti.sweep": sweep, "pti.outcome": outcome, "pti.pivot": pivot}
    every = {"lr": lr, "seed": seed, "steps": 10, **dict(params)}
    names = {"distance": "distance/delta_norm", "gain": "reconstruction/bank_gain"}
    found = {names.get(k, k.replace("__", "/")): v for k, v in metrics.items()}
    return logged(f"{stage} lr={lr:g} seed={seed}", every, tags, found)


def inversion(sweep, lr, gain, seed=0, **others):
    metrics = {"editability__relative": 1.0} | leaks("class", 0.5)
    distance = 0.5 * (lr / 1e-3) ** 0.6 * (1 + 0.02 * seed)
    return member(sweep, "invert", lr, seed, distance=distance, gain=gain, **{**metrics, **others})


def leaks(against, auc, error=0.0255):
    return {
        f"leak__{against}_auc": auc,
        f"leak__{against}_auc_low": auc - 1.96 * error,
        f"leak__{against}_auc_high": auc + 1.96 * error,
        f"leak__{against}_p": 0.5 * math.erfc((auc - 0.5) / error / math.sqrt(2)),
    }


def tuned(sweep, lr, auc, appearance, pivot="a", seed=0, distance=None, **others):
    metrics = {"editability__relative": 1.0, "reconstruction__appearance": appearance}
    metrics |= leaks("pivot", auc) | {"reconstruction__appearance_before": 0.4}
    distance = distance or 14 * (lr / 1e-3) ** 0.8
    return member(
        sweep, "finetune", lr, seed, pivot=pivot, distance=distance, gain=0.1,
        **{**metrics, **others},
    )  # fmt: skip


def artifact(run_id, name, folder):
    with open(MlflowClient().download_artifacts(run_id, name, str(folder))) as file:
        return file.read()


def test_a_knee_over_seeds_is_written_with_every_reason(sweep, store):
    run = sweep(lrs="...")
    ids = [
        inversion(run, lr, gain * (1 + 0.02 * seed), seed)
        for seed in (0, 1)
        for lr, gain in zip(RATES[1:], RISE[1:], strict=True)
    ]
    found, choice = select(run)
    assert found.params["lr"] == "0.001" and found.id in ids and choice.bracketed
    chosen = find_runs(step="select")[-1]
    for where in (chosen, get_run(run)):
        assert where.tags["pti.choice"] == found.id
        assert where.tags["pti.choice_reason"] == choice.reason
        assert where.tags["pti.certified"] == "yes"
        for key, value in (("distance", choice.value), ("low", choice.low), ("high", choice.high)):
            assert where.metrics[f"choice/{key}"] == pytest.approx(value)
    assert choice.low < choice.value < choice.high
    text = artifact(chosen.id, "choice.md", store)
    assert text.count("\n| invert lr=") == 10 and text.count("**chosen**") == 1
    assert "less near to the knee" in text and "another seed" in text
    assert "Cross-checks of the knee" in text and "Kneedle" in text
    assert "Certified free of a leak up to this distance" in text
    assert {get_run(i).tags["pti.chosen"] for i in ids if i != found.id} == {"no"}
    assert get_run(found.id).tags["pti.chosen"] == "yes"


def test_a_limit_is_chosen_and_diverged_and_failed_runs_are_said(sweep, store):
    run = sweep("finetune")
    for lr, auc in zip(RATES[:5], AUCS, strict=False):
        tuned(run, lr, auc, 0.5 + 0.01 * math.log(lr / 1e-5))
    member(run, "finetune", 1e-2, outcome="diverged", pivot="a", distance=0.01)
    member(run, "finetune", 1.0, pivot="a", distance=3.0)
    with (
        pytest.raises(RuntimeError),
        open_run("finetune lr=7", {"lr": 7.0}, {"pti.step": "finetune", "pti.sweep": run}),
    ):
        raise RuntimeError
    found, choice = select(run)
    assert found.params["lr"] == "0.0003" and choice.rule == "limit"
    assert found.metrics["distance/delta_norm"] < choice.value < 14
    last = find_runs(step="select")[-1].metrics
    assert last["choice/leak_auc"] == pytest.approx(0.5)  # its nearer neighbor's is 0.51
    assert last["choice/leak_p"] == pytest.approx(found.metrics["leak/pivot_p"])
    text = artifact(find_runs(step="select")[-1].id, "choice.md", store)
    assert "finetune lr=7: failed, not finished" in text
    assert "finetune lr=1 seed=0: not evaluated" in text
    assert "| finetune lr=0.01 seed=0 | 0.01 | - | - | - | diverged |" in text
    assert "a leak is detected" in text


@pytest.mark.parametrize(
    ("appearance", "aucs", "sure", "lr"),
    [
        (0.7, (0.5, 0.5), True, "0.0002"),  # a better limit around another pivot
        (0.55, (0.5, 0.5), True, "0.0003"),
        (0.95, (0.7, 0.8), False, "0.0003"),  # it copies from the start: of no use
    ],
)
def test_the_best_of_what_each_pivots_limit_gives(sweep, appearance, aucs, sure, lr):
    run = sweep("finetune")
    for rate, auc, seen in ((1e-4, 0.5, 0.5), (3e-4, 0.5, 0.6), (1e-3, 0.8, 0.9)):
        tuned(run, rate, auc, seen)
    others = [
        tuned(run, rate, auc, appearance, "b") for rate, auc in zip((1e-4, 2e-4), aucs, strict=True)
    ]
    found, choice = select(run)
    assert found.params["lr"] == lr and (found.id in others) == (lr == "0.0002")
    assert "2 pivots" in choice.reason
    assert len(choice.rejected) == 4
    said = " ".join(why for _, why in choice.rejected)
    assert ("reconstructs no better" if sure else "it leaks or collapsed") in said


def test_without_appearance_the_bank_gain_decides(sweep):
    run = sweep("finetune")
    for rate, seen in ((1e-4, 0.5), (3e-4, math.nan), (1e-3, 0.4)):
        tuned(run, rate, 0.5, seen)
    found, choice = select(run)
    assert found.params["lr"] == "0.001" and "no limit in this range" in choice.reason


def test_a_loss_above_the_pivots_is_a_collapse(sweep):
    pivot = logged("invert", {}, {"pti.step": "invert"}, {"reconstruction/bank_gain": 0.3})
    run = sweep("finetune")
    for rate, gain in ((1e-4, 0.31), (3e-4, 0.33), (1e-3, 0.2)):
        tuned(run, rate, 0.5, 0.5, pivot, **{"reconstruction__bank_gain": gain})
    found, choice = select(run)
    assert found.params["lr"] == "0.0003" and "collapse" in choice.reason


def test_a_varied_setting_is_chosen_too(sweep):
    run = sweep(vary="vectors:1,2")
    for vectors, height in ((1, 1.0), (2, 1.5)):
        for lr, gain in zip(RATES[1:], RISE[1:], strict=True):
            inversion(run, lr, gain * height, params={"vectors": vectors})
    found, choice = select(run)
    assert found.params["vectors"] == "2" and "2 values of vectors" in choice.reason
    assert len(choice.rejected) == 9 and len(choice.rows) == 5


def test_runs_that_differ_in_more_than_was_varied_are_refused(sweep):
    run = sweep(vary="rank:4,8")
    for lr, rank, alpha in ((1e-4, 4, 4), (3e-4, 8, 8)):
        tuned(run, lr, 0.5, 0.5, params={"rank": rank, "alpha": alpha})
    inverted = sweep(vary="")
    inversion(inverted, 1e-3, 0.1, params={"vectors": 1, "batch_size": 4})
    inversion(inverted, 1e-2, 0.1, params={"vectors": 2, "batch_size": 8})
    with pytest.raises(UsageError, match=r"E223.*differ in batch_size, vectors"):
        select(inverted)


def test_too_few_distances_are_chosen_among_and_said(sweep):
    run = sweep()
    for lr, gain in ((1e-4, 0.01), (1e-3, 0.04)):
        inversion(run, lr, gain)
    found, choice = select(run)
    assert found.params["lr"] == "0.001" and "too few points for a curve" in choice.reason
    assert "choice/low" not in get_run(run).metrics
    assert get_run(run).metrics["choice/distance"] == pytest.approx(0.5)


def test_bad_sweeps_are_refused_in_a_line(sweep):
    empty = sweep()
    with pytest.raises(UsageError, match=r"E224.*no finished run"):
        select(empty)
    unmeasured = sweep()
    member(unmeasured, "invert", 1e-3, distance=1.0)
    with pytest.raises(UsageError, match=r"E214.*no run of .* was evaluated"):
        select(unmeasured)
    ill = sweep()
    member(ill, "invert", 1e-3, outcome="diverged")
    with pytest.raises(DivergedError, match="E902"):
        select(ill)
    fallen = sweep()
    inversion(fallen, 1e-3, 0.1, editability__relative=0.1)
    with pytest.raises(DivergedError, match="E902"):
        select(fallen)
    with pytest.raises(UsageError, match="E213"):
        select(find_runs(step="invert")[0].id)


def test_certified_is_said_where_it_holds(sweep):
    run = sweep("finetune", samples=1024)
    few = sweep("finetune", samples=64)
    for rate in (1e-4, 3e-4, 1e-3):
        tuned(run, rate, 0.5, 0.5, **leaks("pivot", 0.5, 0.0128))
        tuned(few, rate, 0.5, 0.5, **leaks("pivot", 0.5, 0.051))
    for where, certified in ((run, True), (few, False)):
        _, choice = select(where)
        assert choice.certified == certified
        assert get_run(where).tags["pti.certified"] == ("yes" if certified else "no")
    assert "571 samples of each run instead of 64" in choice.certificate
