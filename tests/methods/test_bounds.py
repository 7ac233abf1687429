"""Trainings that end, or are held, at a distance."""

import pytest
import torch

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.errors import UsageError
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.tuning import finetune

STEPS = 30


@pytest.fixture
def material(base, pictures):
    return prepare(base, load_subject(pictures, 16), ["<c>"])


def train(base, material, stage, **options):
    """Train two experiments, the second with ``options``; their distances step by step."""
    kind = {"invert": InvertSettings, "finetune": FinetuneSettings}[stage]
    where = {k: v for k, v in options.items() if k == "at_distance"}
    pair = [kind(lr=0.01, steps=STEPS, **where), kind(lr=0.01, steps=STEPS, seed=1, **options)]
    row = base.initializer_row("cat")
    if stage == "invert":
        vectors = row.expand(2, 1, -1).clone()
        moments = [
            (m.metrics["distance/delta_norm"], m) for m in invert(base, material, vectors, pair)
        ]
        ends = [vectors]
    else:
        pivot = Pivot("<c>", "cat", row[None], row[None])
        adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0, 1])
        tuned = finetune(base, adapter, material, [pivot] * 2, pair)
        moments = [(m.metrics["distance/delta_norm"], m) for m in tuned]
        ends = [p.detach().clone() for p in adapter.parameters]
        lora.detach(adapter)
    distances = torch.stack([d for d, _ in moments])
    return distances, [m for _, m in moments], [p.detach() for p in ends]


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_an_experiment_stops_at_its_distance_and_the_other_is_unchanged(base, material, stage):
    free, _, ends = train(base, material, stage)
    bound = float(free[STEPS // 2, 1])
    held, moments, stopped = train(base, material, stage, until_distance=bound)
    crossing = int((free[:, 1] >= bound).nonzero()[0])
    assert torch.equal(held[: crossing + 1], free[: crossing + 1])
    assert (held[crossing:, 1] == held[crossing, 1]).all()
    assert [bool(m.going[1]) for m in moments] == [i <= crossing for i in range(STEPS)]
    assert all(bool(m.alive.all()) for m in moments)
    for a, b in zip(ends, stopped, strict=True):
        assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_a_projected_experiment_goes_on_at_its_distance(base, material, stage):
    free, _, _ = train(base, material, stage)
    bound = float(free[STEPS // 2, 1])
    held, moments, ends = train(base, material, stage, until_distance=bound, at_distance="project")
    assert float(held[:, 1].max()) <= bound * (1 + 1e-6)
    assert float(held[-1, 1]) == pytest.approx(bound, rel=1e-3)
    assert all(bool(m.going.all()) for m in moments)
    path = torch.stack([m.metrics["distance/path"][1] for m in moments])
    assert (path.diff() > 0).all()
    assert torch.equal(held[:, 0], free[:, 0])
    assert all(p.isfinite().all() for p in ends)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"until_distance": -1.0}, "until_distance is -1.0"), ({"at_distance": "turn"}, "'turn'")],
)
def test_a_bound_that_makes_no_sense_names_itself(options, message):
    with pytest.raises(UsageError, match=message):
        InvertSettings(**options)
