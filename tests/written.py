"""Studies written straight into a store, with numbers and pictures that are known."""

from __future__ import annotations

import math

import numpy as np

from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.write import add_tags

LRS = (0.001, 0.003, 0.01)
STEPS = (10, 20)
"""At which sample grids and gains are logged; the last one is the training's."""
DISTANCES = {"invert": 0.1, "finetune": 1.0, "regularized": 2.0}
"""Of the first learning rate at the last step; each further one is three times as far."""
GAINS = {"appearance": 0.5, "position": 0.1, "pose": 0.05, "scene": -0.02}


def color(stage, index, step):
    """Gray level of all of a grid's pictures."""
    return 60 * index + step + (5 if stage == "finetune" else 0)


def write_study(
    token="<x>", *, lrs=LRS, stages=("invert", "finetune"), note="", bracketed="yes", **of_runs
):
    """Write a study and return its run's id; see :func:`_write_run` for the rest.

    The stage ``regularized`` is a second sweep of tunings; the last stage's choice is registered.
    """
    params = {"token": token, "initializer": "cat", "steps": 20, "seeds": "0", "images": "a b"}
    with open_run(f"study {token}", params, {"pti.step": "main"}) as study:
        for stage in stages:
            step, regularizer = (
                ("finetune", "locality") if stage == "regularized" else (stage, "none")
            )
            tags = {"pti.step": "sweep", "pti.stage": step, "pti.study": study.id}
            with open_run(f"sweep {stage}", {"regularizer": regularizer}, tags) as sweep:
                ids = [
                    _write_run(stage, study.id, sweep.id, i, lr, **of_runs)
                    for i, lr in enumerate(lrs)
                ]
            chosen = ids[len(ids) // 2]
            why = "the nearest point (distance 0.3); for its own sake"
            reason = note or f"**name** ({chosen}): {why}.\n\n| a |"
            verdict = {"pti.choice": chosen, "pti.bracketed": bracketed}
            add_tags(get_run(sweep.id), {**verdict, "mlflow.note.content": reason})
            for run_id in ids:
                add_tags(get_run(run_id), {"pti.chosen": "yes" if run_id == chosen else "no"})
            tags = {"pti.step": "select", "pti.study": study.id, "pti.choice": chosen}
            with open_run("select", {}, tags) as select:
                middle = DISTANCES[stage] * 3 ** (len(ids) // 2)
                select.log_metrics({"choice/low": 0.8 * middle, "choice/high": 1.5 * middle})
        if len(stages) > 2:
            add_tags(get_run(study.id), {"pti.preference": "locality reconstructs better"})
        if len(stages) > 1:
            made = {"pti.model": "x", "pti.version": "7", "pti.registered": chosen}
            tags = {"pti.step": "register", "pti.study": study.id, **made}
            with open_run("register x", {"alias": "champion"}, tags):
                pass
    return study.id


def _write_run(
    stage,
    study,
    sweep,
    index,
    lr,
    *,
    measured=True,
    images=True,
    twins=False,
    diverged=-1,
    name="",
    seed=0,
):
    """Write the training of learning rate ``index``, diverged if that is its number."""
    tags = {
        "pti.step": "finetune" if stage == "regularized" else stage,
        "pti.study": study,
        "pti.sweep": sweep,
        "pti.outcome": "diverged" if index == diverged else "finished",
        "pti.diverged_step": 13 if index == diverged else "",
        "pti.base_fingerprint": "b" * 64,
        "pti.data_fingerprint": "d" * 64,
    }
    params = {"lr": lr, "seed": seed, "steps": STEPS[-1]}
    with open_run(name or f"{stage} lr={lr:g} seed=0", params, tags) as run:
        for step in STEPS:
            distance = DISTANCES[stage] * 3**index * step / STEPS[-1]
            run.log_metrics(
                {
                    "distance/delta_norm": distance,
                    "distance/log10": math.log10(distance),
                    "distance/lr_x_steps": lr * step,
                },
                step,
            )
            if images:
                gray = color(stage, index, step)
                run.log_image("samples", np.full((72, 96, 3), gray, np.uint8), step)
            if twins and stage != "invert":
                gains = {f"twins/{k}": v * distance for k, v in GAINS.items()}
                run.log_metrics(gains, step)
        if measured and index != diverged:
            run.log_metrics(_measured(stage, index), STEPS[-1])
    return run.id


def _measured(stage, index):
    against = "class" if stage == "invert" else "pivot"
    return {
        "reconstruction/bank_gain": 0.1,
        "reconstruction/appearance": 0.4 + 0.1 * index,
        "editability/relative": 1.0 - 0.2 * index,
        f"leak/{against}_auc": 0.5 + 0.05 * index,
        f"leak/{against}_auc_low": 0.45 + 0.05 * index,
        f"leak/{against}_auc_high": 0.53 + 0.05 * index,
        f"leak/{against}_p": 0.4 / 10**index,
        "diversity/positions": 1.0 - 0.1 * index,
    }
