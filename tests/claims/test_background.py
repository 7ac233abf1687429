"""What a training learns, and from where, when the loss outside the subject weighs nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.pivot import Pivot, placeholder_tokens
from pti_pipeline.probes import encode_probe, read
from pti_pipeline.settings import TARGETS, FinetuneSettings
from pti_pipeline.studies.claims.bench import TOKEN, prepare_bench
from pti_pipeline.studies.claims.cells import Cell, read_cell
from pti_pipeline.studies.claims.effort import FULL
from pti_pipeline.studies.claims.inversions import chosen_pivot
from pti_pipeline.tuning import finetune
from pti_pipeline.watching import gains
from pti_pipeline.world.render import masks
from pti_pipeline.world.subjects import views

CELLS = Path(__file__).parents[2] / "docs/results/cells"


@pytest.mark.slow
def test_the_subject_is_learned_sooner_than_its_surroundings():
    """Mochi's pivot of the claims, tuned for 25 steps with two seeds in one pass."""
    bench = prepare_bench(Cell("tuning", "mochi", 0), FULL)
    base, cell = bench.base, bench.cell
    drawn = masks(views(cell.character, cell.pictures), base.resolution)
    subject = replace(bench.subject, masks=tuple(drawn))
    vectors = torch.tensor(chosen_pivot(read_cell(CELLS, replace(cell, kind="inversion"))))
    species = cell.character.species
    pivot = Pivot(TOKEN, species, vectors, base.initializer_row(species).expand_as(vectors))
    states = encode_probe(base, bench.probe, vectors)
    before = read(base, bench.probe, states)

    def gained(background):
        settings = FinetuneSettings(lr=1e-3, steps=25, background=background)
        runs = [settings, replace(settings, seed=1)]
        material = prepare(base, subject, placeholder_tokens(TOKEN, len(vectors)), settings)
        adapter = lora.attach(base.denoiser, settings.rank, settings.alpha, TARGETS, [0, 1])
        for _ in finetune(base, adapter, material, [pivot] * 2, runs):
            pass
        told = []
        for k in range(2):
            with lora.only(adapter, slice(k, k + 1)):
                told.append(gains(read(base, bench.probe, states), before))
        lora.detach(adapter)
        return {name: sum(each[name] for each in told) / 2 for name in told[0]}

    usual, bare = gained(1.0), gained(0.0)
    assert bare["twins/appearance"] > 2 * usual["twins/appearance"] > 0
    assert bare["twins/scene"] < usual["twins/scene"]
