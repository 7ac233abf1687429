"""What the options of updates do to trainings: averages, norms, micro-batches, checkpointing."""

from dataclasses import replace

import pytest
import torch
from diffusers.training_utils import EMAModel

from pti_pipeline import lora, memory
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.families.recomputing import recomputed
from pti_pipeline.inversion import invert, token_losses
from pti_pipeline.live import held_bytes
from pti_pipeline.norms import median_norms
from pti_pipeline.optimizers import Manner
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.state import State
from pti_pipeline.training import Losses, optimise
from pti_pipeline.tuning import finetune

STEPS = 12


@pytest.fixture
def material(base, pictures):
    return prepare(base, load_subject(pictures, 16), ["<c>"])


def inverted(base, material, runs):
    """Vectors and distances after each update, and the training's state."""
    vectors = base.initializer_row("cat").to(material.mean.dtype).expand(len(runs), 1, -1).clone()
    state, path, told = State.begin(len(runs)), [], []
    for moment in invert(base, material, vectors, runs, state):
        path.append(vectors.detach().clone())
        told.append({**moment.metrics, **moment.derived})
    return torch.stack(path), told, state


def tuned(base, material, runs):
    """Weights and distances after each update, and the training's state."""
    row = base.initializer_row("cat")[None].to(material.mean.dtype)
    pivot, state = Pivot("<c>", "cat", row + 0.1, row), State.begin(len(runs))
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [e.seed for e in runs])
    for layer in adapter.layers.values():
        layer.down, layer.up = layer.down.to(row.dtype), layer.up.to(row.dtype)
    path, told = [], []
    for moment in finetune(base, adapter, material, [pivot] * len(runs), runs, state=state):
        path.append(state.values.clone())
        told.append({**moment.metrics, **moment.derived})
    lora.detach(adapter)
    return torch.stack(path), told, state


STAGES = {"invert": (inverted, InvertSettings), "finetune": (tuned, FinetuneSettings)}


@pytest.fixture(params=STAGES)
def stage(request):
    train, kind = STAGES[request.param]
    return train, lambda **options: kind(**{"lr": 0.02, "steps": STEPS, "batch_size": 4} | options)


def test_the_average_is_that_of_diffusers():
    p, lr = torch.linspace(1, 2, 12).reshape(3, 4).double(), torch.full((3,), 0.03).double()
    plain, decays = p.clone(), (0.0, 0.3, 0.9)

    def loss(q):
        return lambda step, part, rows: Losses.plain(
            (q[part] ** 2).sum(1), torch.full((len(q[part]),), 99.0)
        )

    theirs = [EMAModel([plain[k]], decay=decay) for k, decay in enumerate(decays)]
    shown = optimise([p], loss(p), lr, 40, manner=Manner(ema=decays))
    for _, record in zip(optimise([plain], loss(plain), lr, 40), shown, strict=True):
        for k, average in enumerate(theirs):
            average.step([plain[k].detach().requires_grad_()])
            expected = average.shadow_params[0]
            torch.testing.assert_close(p[k].detach(), expected, rtol=1e-12, atol=0)
        assert record.alive.all()
    assert torch.equal(p[0], plain[0])


def test_a_stopped_experiments_average_stays():
    p = torch.linspace(1, 2, 8).reshape(2, 4)
    state = State.begin(2)
    state.bind([p])

    def loss(step, part, rows):
        return Losses.plain((p[part] ** 2).sum(1), torch.full((len(p[part]),), 99.0))

    manner = Manner(ema=(0.9, 0.9))
    for record in optimise([p], loss, torch.full((2,), 0.05), 20, state=state, manner=manner):
        if record.step == 8:
            state.stop[1], kept = True, p.detach().clone()
    assert torch.equal(p.detach()[1], kept[1]) and not torch.equal(p.detach()[0], kept[0])


def test_what_is_measured_and_kept_is_the_average(base, material, stage):
    train, settings = stage
    path, told, _ = train(base, material, [settings()])
    shown, averaged, state = train(base, material, [settings(ema=0.8)])
    average = path[0]
    for n, (raw, now) in enumerate(zip(path, shown, strict=True), 1):
        share = min(0.8, n / (9 + n)) if n > 1 else 0.0
        average = share * average + (1 - share) * raw
        torch.testing.assert_close(now, average, rtol=1e-4, atol=1e-6)
    for one, other in zip(told, averaged, strict=True):  # the training itself is the same
        assert torch.equal(one["train/loss"], other["train/loss"])
    last, less = (float(t[-1]["distance/delta_norm"]) for t in (told, averaged))
    assert 0 < less < last
    assert torch.equal(state.memory["uncovered"].flatten(), path[-1].flatten())


def test_experiments_with_and_without_an_average_share_a_pack_and_nothing_else(base, material):
    runs = [InvertSettings(0.02, STEPS, 2), InvertSettings(0.02, STEPS, 2, ema=0.9)]
    plain, _, _ = inverted(base, material, [runs[0], runs[0]])
    mixed, _, _ = inverted(base, material, runs)
    both, _, _ = inverted(base, material, [runs[1], runs[1]])
    assert torch.equal(plain[:, 0], mixed[:, 0]) and torch.equal(both[:, 1], mixed[:, 1])
    assert not torch.equal(plain[:, 1], mixed[:, 1])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_every_learned_vector_keeps_the_vocabularys_norm(base, material, ema):
    usual = {"lr": 0.05, "steps": STEPS, "batch_size": 2, "ema": ema}
    norm = float(median_norms(base.vocabulary(), [base.vocabulary().shape[1]]))
    free, _, _ = inverted(base, material, [InvertSettings(**usual)])
    kept, told, _ = inverted(base, material, [InvertSettings(**usual, norm="vocabulary")])
    assert (free.norm(dim=-1) - norm).abs().max() > 1e-3 * norm
    torch.testing.assert_close(kept.norm(dim=-1), torch.full((STEPS, 1, 1), norm))
    assert float(told[-1]["distance/norm_ratio"]) == pytest.approx(1, abs=1e-5)
    assert float(told[-1]["distance/angle"]) > 0


def test_prodigys_rates_are_those_of_the_nominal_distance(base, material, stage):
    train, settings = stage
    _, told, _ = train(base, material, [settings(lr=2.0, optimizer="prodigy", steps=40)] * 2)
    rates = torch.stack([t["train/lr"] for t in told])
    torch.testing.assert_close(told[-1]["distance/lr_x_steps"], rates.sum(0))
    assert (rates.diff(dim=0) >= 0).all() and float(rates[-1, 0]) > 10 * float(rates[0, 0])
    assert float(rates[0, 0]) == pytest.approx(2e-6)


@pytest.mark.parametrize("rows", [1, 3])
def test_micro_batches_are_the_whole_batch_to_rounding(double_base, pictures, stage, rows):
    train, settings = stage
    drawn = prepare(double_base, load_subject(pictures, 16), ["<c>"])
    material = replace(drawn, mean=drawn.mean.double(), spread=drawn.spread.double())
    whole, told, _ = train(double_base, material, [settings()] * 2)
    pieces, again, state = train(double_base, material, [settings(micro_batch=rows)] * 2)
    assert state.rows.tolist() == {1: [0, 1, 2, 3, 4], 3: [0, 2, 4]}[rows]
    assert len(told) == len(again) == state.step == STEPS
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-8)
    for one, other in zip(told, again, strict=True):
        torch.testing.assert_close(one["train/loss"], other["train/loss"], rtol=1e-6, atol=1e-8)


def test_checkpointing_gives_the_same_trainings(base, material, stage):
    """Of three experiments in passes of a few rows, which must be those of the same ones."""
    train, settings = stage
    runs = [settings(seed=k, micro_batch=2) for k in range(3)]
    spared = [settings(seed=k, micro_batch=2, checkpointing=True) for k in range(3)]
    before = _flags(base)
    plain, told, _ = train(base, material, runs)
    again, others, _ = train(base, material, spared)
    assert torch.equal(plain, again)
    assert all(
        torch.equal(a["train/loss"], b["train/loss"]) for a, b in zip(told, others, strict=True)
    )
    assert _flags(base) == before


def test_in_the_backward_pass_rows_are_of_the_same_experiments(base, material, monkeypatch):
    monkeypatch.setattr(memory, "together", lambda count, *_: [0, 1, count])
    runs = [FinetuneSettings(0.02, STEPS, 2, seed=k) for k in range(3)]
    spared = [FinetuneSettings(0.02, STEPS, 2, seed=k, checkpointing=True) for k in range(3)]
    plain, _, _ = tuned(base, material, runs)
    again, _, state = tuned(base, material, spared)
    assert state.edges.tolist() == [0, 1, 3] and torch.equal(plain, again)


def _flags(base):
    parts = (base.denoiser, *base.text_encoders)
    return [
        (m.training, getattr(m, "gradient_checkpointing", None), sorted(vars(m)))
        for part in parts
        for m in part.modules()
    ]


def test_checkpointing_holds_less_and_is_switched_off_after_an_error(base, material):
    vectors = base.initializer_row("cat").expand(1, 1, -1).clone().requires_grad_()
    before = _flags(base)

    def held(models):
        def forward():
            with recomputed(models):
                return token_losses(base, material, vectors, [0], 4, 0, slice(0, 4)).total

        return held_bytes(forward, base.device)

    whole, denoiser = held([]), held([base.denoiser])
    both = held([base.denoiser, *base.text_encoders])
    assert both < denoiser < 0.6 * whole
    with (
        pytest.raises(RuntimeError, match="stop"),
        recomputed([base.denoiser, *base.text_encoders]),
    ):
        assert _flags(base) != before
        raise RuntimeError("stop")
    assert _flags(base) == before
