"""The cells of tunings: one run followed along its distance, or several rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pti_pipeline import lora, travel
from pti_pipeline.batches import prepare
from pti_pipeline.characters import Characters
from pti_pipeline.data import patterns_of
from pti_pipeline.pivot import Pivot, placeholder_tokens
from pti_pipeline.probes import encode_probe, read
from pti_pipeline.regularizers import regularize
from pti_pipeline.settings import TARGETS, FinetuneSettings
from pti_pipeline.studies.claims.arms import arm_settings
from pti_pipeline.studies.claims.bench import TOKEN, Bench, losses, point, sampled
from pti_pipeline.studies.claims.cells import Result
from pti_pipeline.tuning import finetune
from pti_pipeline.watching import probe_steps

TUNING_LR = 1e-3
"""Of the one run whose checkpoints are the curve."""
SWEEP_LRS = {
    "usual": (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3),
    "low": (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4),
}
"""By name of the range: the low ones are of the comparison's finals."""
SAMPLED = (2.0, 4.0, 7.0, 11.0, 15.0, 20.0)
"""Distances at which a followed run's samples are drawn: the checkpoints nearest to these."""
SCALES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.25)
"""Of the last LoRA, for the path that costs no training."""


def tune_cell(bench: Bench, vectors: Tensor) -> Result:
    """Tune at one rate and follow its checkpoints, or at several and look at each at its end."""
    base, cell = bench.base, bench.cell
    lrs = (TUNING_LR,) if cell.kind == "tuning" else SWEEP_LRS[cell.rates][: bench.effort.rates]
    same = {"steps": bench.effort.steps, "seed": cell.seed, **arm_settings(cell)}
    experiments = [FinetuneSettings(lr=lr, **same) for lr in lrs]
    start = base.initializer_row(cell.character.species).expand_as(vectors)
    pivot = Pivot(TOKEN, cell.character.species, vectors, start)
    who = Characters(TOKEN, vectors[None])
    material = prepare(base, bench.subject, placeholder_tokens(TOKEN, len(vectors)))
    states = encode_probe(base, bench.probe, vectors)
    before = read(base, bench.probe, states)
    references = {}
    if cell.sampled:
        references["class"] = sampled(bench, None)
        references["pivot"] = sampled(bench, who)
    first, seeds = experiments[0], [e.seed for e in experiments]
    adapter = lora.attach(base.denoiser, first.rank, first.alpha, TARGETS, seeds)
    try:
        marks, points = (
            probe_steps(bench.effort.steps, bench.effort.probes[cell.kind]),
            [list[Result]() for _ in experiments],
        )
        kept: list[tuple[int, float, list[Tensor]]] = []
        pivots = [pivot] * len(experiments)
        prompts = patterns_of(bench.subject, TOKEN)
        terms = regularize(base, adapter, material, pivots, prompts, first)
        for moment in finetune(base, adapter, material, pivots, experiments, terms):
            if moment.step in marks:
                for k, rows in enumerate(points):
                    with lora.only(adapter, slice(k, k + 1)):
                        now = read(base, bench.probe, states)
                    rows.append(point(bench, moment.step, moment.metrics, k, now, before))
                copies = [p.detach().clone() for p in adapter.parameters]
                kept.append((moment.step, points[0][-1]["distance"], copies))
        alive, last = moment.alive.tolist(), kept[-1][2]
        runs: list[Result] = [
            {"lr": e.lr, "diverged": not alive[k], "probes": points[k]}
            for k, e in enumerate(experiments)
        ]
        if cell.kind == "tuning":
            runs[0]["scaled"] = _scaled(bench, adapter, last, states)
            if cell.sampled:
                runs[0]["samples"] = _followed(bench, adapter, kept, who)
        elif cell.sampled:
            _restore(adapter, last)
            for k, run in enumerate(runs):
                if alive[k]:
                    with lora.only(adapter, slice(k, k + 1)):
                        run["samples"] = sampled(bench, who)
    finally:
        lora.detach(adapter)
    return {"before": losses(before), "reference": references, "runs": runs}


def _followed(
    bench: Bench,
    adapter: lora.Adapter,
    kept: Sequence[tuple[int, float, list[Tensor]]],
    who: Characters,
) -> list[Result]:
    """Samples at the checkpoints nearest to :data:`SAMPLED` (in log distance)."""
    chosen = {
        min(range(len(kept)), key=lambda i: abs(kept[i][1] / want - 1) + abs(want / kept[i][1] - 1))
        for want in SAMPLED
    }
    rows = []
    for step, distance, parameters in (kept[i] for i in sorted(chosen)):
        _restore(adapter, parameters)
        rows.append({"step": step, "distance": distance, **sampled(bench, who)})
    return rows


def _scaled(
    bench: Bench, adapter: lora.Adapter, last: Sequence[Tensor], states: Tensor
) -> list[Result]:
    """Probe the last LoRA at other scales (Wortsman et al. 2022)."""
    rows = []
    for scale in SCALES:
        _restore(adapter, last)
        for layer in adapter.layers.values():
            layer.up.detach().mul_(scale)
        now = read(bench.base, bench.probe, states)
        travelled = travel.travelled(adapter, travel.place(adapter))
        rows.append({"scale": scale, "distance": float(travelled[0]), "losses": losses(now)})
    _restore(adapter, last)
    return rows


@torch.no_grad()
def _restore(adapter: lora.Adapter, parameters: Sequence[Tensor]) -> None:
    for now, then in zip(adapter.parameters, parameters, strict=True):
        now.copy_(then)
