"""Runs with a character's real files in them, made without training."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pti_pipeline import lora
from pti_pipeline.pivot import Pivot, save_pivot
from pti_pipeline.settings import TARGETS
from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.write import add_metrics, add_tags

MEASURED = {
    "distance/delta_norm": 1.5,
    "reconstruction/bank_gain": 0.1,
    "editability/relative": 0.9,
    "leak/class_auc": 0.52,
    "leak/class_auc_low": 0.44,
    "leak/class_auc_high": 0.6,
    "leak/class_p": 0.3,
    "leak/pivot_auc": 0.51,
    "leak/pivot_auc_low": 0.43,
    "leak/pivot_auc_high": 0.59,
    "leak/pivot_p": 0.4,
}


def make_pivot(base, token, seed=0, vectors=1, initializer="cat"):
    """A pivot near its initializer token."""
    start = base.initializer_row(initializer).expand(vectors, -1)
    g = torch.Generator().manual_seed(seed)
    spread = float(start.std())
    moved = start + 0.5 * spread * torch.randn(start.shape, generator=g)
    return Pivot(token, initializer, moved, start)


def make_lora(base, seed=0, rank=2, alpha=2.0, size=0.05, targets=TARGETS):
    """A LoRA's state and settings, far enough from 0 to change pictures."""
    adapter = lora.attach(base.denoiser, rank, alpha, targets, [seed])
    g = torch.Generator().manual_seed(seed)
    for layer in adapter.layers.values():
        layer.up += size * torch.randn(layer.up.shape, generator=g)
    state = lora.peft_state(adapter, 0)
    lora.detach(adapter)
    return state, {"r": rank, "lora_alpha": alpha, "target_modules": list(targets)}


def write_files(base, folder: Path, token, seed=0, vectors=1, tuned=True, **of_lora):
    """Write a character's weights into ``folder``, as the steps do."""
    save_pivot(make_pivot(base, token, seed, vectors), folder / "learned_embeds.safetensors")
    if tuned:
        base.save_lora(*make_lora(base, seed, **of_lora), folder)


def write_run(base, token, step="finetune", *, seed=0, metrics=(), tags=(), files=True, **more):
    """Log a finished, measured run of ``step`` that holds a character; return its id."""
    facts = {
        "pti.step": step,
        "pti.outcome": "finished",
        "pti.base": base.name,
        "pti.base_fingerprint": base.fingerprint,
        "pti.token": token,
        "pti.initializer": "cat",
        **dict(tags),
    }
    params = {"lr": 0.001, "steps": 20, "seed": seed}
    with TemporaryDirectory() as temporary, open_run(f"{step} lr=0.001", params, facts) as run:
        folder = Path(temporary)
        write_files(base, folder, token, seed, tuned=step == "finetune", **more)
        if files:
            run.log_artifact(folder / "learned_embeds.safetensors", "pivot")
        if files and step == "finetune":
            run.log_artifact(folder / "pytorch_lora_weights.safetensors", "lora")
        for gray, at in ((10, 10), (90, 20)):
            run.log_image("samples", np.full((96, 192, 3), gray, np.uint8), at)
        run.log_metrics({**MEASURED, **dict(metrics)}, 20)
    return run.id


def write_sweep(base, token, sound="yes", step="finetune", choice=(), **more):
    """A sweep whose only run is chosen; returns both ids."""
    with open_run("sweep", {}, {"pti.step": "sweep", "pti.stage": step}) as sweep:
        run = write_run(base, token, step, tags={"pti.sweep": sweep.id}, **more)
    numbers = {"distance": 1.8, "low": 1.2, "high": 2.4, "leak_auc": 0.51, "leak_p": 0.4}
    add_metrics(
        get_run(sweep.id), {f"choice/{k}": v for k, v in {**numbers, **dict(choice)}.items()}
    )
    verdict = {
        "choice": run, "choice_reason": "limit at distance 1.8 < 2 <b>", "certified": "yes",
        "bracketed": "yes", "sound": sound,
    }  # fmt: skip
    add_tags(get_run(sweep.id), {f"pti.{key}": value for key, value in verdict.items()})
    return sweep.id, run
