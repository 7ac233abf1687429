import math

import pytest
import torch

from faults.tiny import WORDS
from pti_pipeline import lora
from pti_pipeline.batches import Material, draw_batch, prepare
from pti_pipeline.data import load_subject
from pti_pipeline.errors import ResourceError
from pti_pipeline.inversion import invert
from pti_pipeline.optimizers import Manner, update
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.state import State
from pti_pipeline.training import Losses, optimise
from pti_pipeline.tuning import finetune

EVERYONE = torch.tensor([True, True])


def test_flat_adam_is_torchs_adam():
    g = torch.Generator().manual_seed(0)
    ours = [torch.randn(2, 3, 4, generator=g).double(), torch.randn(2, 5, generator=g).double()]
    theirs = [[p[k].clone().requires_grad_() for p in ours] for k in range(2)]
    lr = torch.tensor([0.1, 0.003]).double()
    free, state = torch.full((2,), math.inf), State.begin(2)
    state.bind(ours)
    torchs = [torch.optim.Adam(p, lr=float(r)) for p, r in zip(theirs, lr, strict=True)]
    for _ in range(20):
        gradients = torch.autograd.grad(sum((p**4).sum() for p in ours), ours)
        update(state, gradients, EVERYONE, lr, free, Manner())
        for torchs_adam, parameters in zip(torchs, theirs, strict=True):
            torchs_adam.zero_grad()
            sum((p**4).sum() for p in parameters).backward()
            torchs_adam.step()
    for index, p in enumerate(ours):
        for k in range(2):
            torch.testing.assert_close(p[k].detach(), theirs[k][index].detach())


def test_clipping_is_torchs_for_each_experiment_apart():
    g = torch.Generator().manual_seed(0)
    ours = [torch.randn(2, 3, generator=g).double(), torch.randn(2, 5, generator=g).double()]
    theirs = [[p[k].clone().requires_grad_() for p in ours] for k in range(2)]
    lr, clip = torch.tensor([0.1, 0.1]).double(), torch.tensor([0.5, math.inf]).double()
    state = State.begin(2)
    state.bind(ours)
    torchs = [torch.optim.Adam(p, lr=0.1) for p in theirs]
    for _ in range(20):
        gradients = torch.autograd.grad(sum((p**4).sum() for p in ours), ours)
        update(state, gradients, EVERYONE, lr, clip, Manner())
        for torchs_adam, parameters, most in zip(torchs, theirs, clip, strict=True):
            torchs_adam.zero_grad()
            sum((p**4).sum() for p in parameters).backward()
            torch.nn.utils.clip_grad_norm_(parameters, float(most))
            torchs_adam.step()
    for index, p in enumerate(ours):
        for k in range(2):
            torch.testing.assert_close(p[k].detach(), theirs[k][index].detach(), rtol=1e-5, atol=0)


def quadratic(p, nothing=99.0):
    return lambda step, part, rows: Losses.plain(
        (p[part] ** 2).sum(1), torch.full((len(p[part]),), nothing).to(p.dtype)
    )


def test_a_stopped_experiment_stays_and_the_others_end_the_same():
    ends = []
    for stopped in (False, True):
        p = torch.linspace(1, 2, 12).reshape(3, 4)
        state, kept = State.begin(3), None
        state.bind([p])
        for record in optimise([p], quadratic(p), torch.full((3,), 0.01), 20, state=state):
            if stopped and record.step == 8:
                state.stop[1], kept = True, p.detach().clone()
            assert record.alive.all()
            assert record.going.tolist() == [True, not stopped or record.step <= 8, True]
        ends.append(p.detach().clone())
        assert not stopped or torch.equal(p.detach()[1], kept[1])
    assert torch.equal(ends[0][[0, 2]], ends[1][[0, 2]])


@pytest.mark.parametrize("where", ["loss", "gradient", "sound", "patience"])
def test_an_experiment_that_diverges_is_frozen_and_the_others_end_the_same(where):
    ends, lives = [], []
    for ill in (False, True):
        after = []
        p = torch.linspace(1, 2, 12).reshape(3, 4)

        def loss(step, part, rows, p=p, ill=ill):
            losses = quadratic(p)(step, part, rows)
            value, nothing = losses.own, losses.nothing
            if ill and step >= 7 and where == "loss":
                value = value * torch.tensor([1, math.nan, 1])
            if ill and step >= 7 and where == "gradient":  # finite, with an infinite slope
                slope = (p.detach()[1] - p[1]).abs().sqrt().sum()
                value = value + slope * torch.tensor([0, 1, 0])
            if where == "patience":
                nothing = torch.tensor([99.0, 0.01 if ill and step else 99.0, 99.0])
            return Losses.plain(value, nothing)

        def sound(ill=ill, after=after):
            return torch.tensor([True, not (ill and where == "sound" and len(after) >= 7), True])

        for record in optimise([p], loss, torch.full((3,), 0.01), 60, settle=sound):
            after.append(p.detach().clone())
            lives.append(record.alive.tolist())
        ends.append(after)
    first = lives[60:].index([True, False, True])
    assert first == {"patience": 49}.get(where, 7)
    assert all(alive == [True, False, True] for alive in lives[60 + first :])
    healthy, ill = ends
    assert torch.equal(healthy[-1][[0, 2]], ill[-1][[0, 2]])
    assert ill[-1].isfinite().all()
    assert torch.equal(ill[-1][1], ill[first][1])
    assert not torch.equal(healthy[-1][1], ill[-1][1])


@pytest.mark.parametrize("step", [1, 7, 49, 60])
def test_a_training_goes_on_bit_for_bit_from_its_tensors(step):
    """Of three experiments one diverges by patience, one was stopped, memory has run out."""

    def run(state, p, until):
        def loss(at, part, rows):
            if at == 3 and part.stop - part.start > 2:
                raise torch.OutOfMemoryError("out of memory")
            nothing = torch.tensor([99.0, 0.01 if at else 99.0, 99.0])[part]
            return Losses.plain((p[part] ** 2).sum(1), nothing)

        state.bind([p])
        for record in optimise([p], loss, torch.tensor([0.01, 0.02, 0.03]), 80, state=state):
            state.stop[2] |= record.step >= 5
            lived.append(record.alive.tolist())
            if record.step == until:
                return {name: value.detach().clone() for name, value in state.tensors().items()}

    start, lived = torch.linspace(1, 2, 12).reshape(3, 4), []
    whole = run(State.begin(3), start.clone(), 80)
    parts = run(State.begin(3), start.clone(), step)
    again = run(State.load(parts, step, "cpu"), start.clone(), 80)
    assert lived[:80] == lived[80:] and lived[-1] == [True, False, True]
    assert whole["edges"].tolist() == [0, 1, 2, 3]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_memory_that_runs_out_halves_the_passes_and_loses_no_step():
    p, whole = torch.linspace(1, 2, 20).reshape(5, 4), torch.linspace(1, 2, 20).reshape(5, 4)
    lengths = []

    def small(step, part, rows):
        if step >= 3 and part.stop - part.start > 2:
            torch.empty(10**14)  # the error is this system's own
        lengths.append((step, part.stop - part.start))
        return quadratic(p)(step, part, rows)

    lr = torch.full((5,), 0.01)
    records = list(optimise([p], small, lr, 6))
    assert [r.step for r in records] == [1, 2, 3, 4, 5, 6]
    assert [n for step, n in lengths if step == 5] == [1, 2, 2]
    list(optimise([whole], quadratic(whole), lr, 6))
    assert torch.equal(p, whole)


def test_one_experiment_that_does_not_fit_is_taken_in_pieces_of_its_batch():
    p, data = torch.linspace(1, 2, 8).reshape(2, 4), torch.linspace(-1, 1, 40).reshape(10, 4)
    whole, taken = p.clone(), []

    def loss(p, most):
        def mean(step, part, rows):
            if (part.stop - part.start) * (rows.stop - rows.start) > most:
                raise torch.OutOfMemoryError("out of memory")
            taken.append((part.start, rows.start, rows.stop))
            away = (p[part, None] - data[rows]).square().sum((1, 2)) / 10
            return Losses.plain(away, torch.full((len(away),), 99.0))

        return mean

    lr, state = torch.tensor([0.01, 0.1]), State.begin(2)
    state.bind([p])
    with pytest.warns(UserWarning, match="memory ran out: going on with micro-batches of 2"):
        records = list(optimise([p], loss(p, 3), lr, 5, state=state, rows=10))
    assert taken[-10:] == [(k, i, i + 2) for k in range(2) for i in range(0, 10, 2)]
    assert state.rows.tolist() == [0, 2, 4, 6, 8, 10] and state.edges.tolist() == [0, 1, 2]
    others = list(optimise([whole], loss(whole, 99), lr, 5, rows=10))
    torch.testing.assert_close(p, whole, rtol=1e-6, atol=1e-6)
    for one, other in zip(records, others, strict=True):
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-6, atol=1e-6)


def test_one_row_that_does_not_fit_is_told():
    def big(step, part, rows):
        torch.empty(10**14)  # the error is this system's own

    with pytest.raises(ResourceError, match="E601"), pytest.warns(UserWarning, match="of 1"):
        next(optimise([torch.ones(2, 3)], big, torch.ones(2), 1, rows=4))


@pytest.fixture
def subject(pictures):
    return load_subject(pictures, 16)


def test_only_the_placeholders_rows_move(base, subject):
    state = {k: v.clone() for k, v in base.text_encoders[0].state_dict().items()}
    unet = {k: v.clone() for k, v in base.denoiser.state_dict().items()}
    material = prepare(base, subject, ["<c>"])
    vectors = base.initializer_row("cat").expand(1, 1, -1).clone()
    start = vectors.clone()
    for _ in invert(base, material, vectors, [InvertSettings(lr=0.1, steps=5)]):
        pass
    assert not torch.equal(vectors, start)
    assert all(torch.equal(state[k], v) for k, v in base.text_encoders[0].state_dict().items())
    assert all(torch.equal(unet[k], v) for k, v in base.denoiser.state_dict().items())


def test_the_pivot_is_bit_identical_after_tuning(base, subject):
    material = prepare(base, subject, ["<c>"])
    pivot = Pivot("<c>", "cat", torch.randn(1, 16), torch.zeros(1, 16))
    before = pivot.embedding.clone()
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    for _ in finetune(base, adapter, material, [pivot], [FinetuneSettings(lr=0.1, steps=5)]):
        pass
    assert torch.equal(pivot.embedding, before)
    lora.detach(adapter)


@pytest.mark.parametrize(
    "change", [{"lr": 0.02}, {"seed": 1}, {"batch_size": 3}, {"steps": 6}, {"clip": 1e-3}]
)
def test_each_setting_of_the_inversion_matters(base, subject, change):
    material = prepare(base, subject, ["<c>"])
    ends = []
    for options in ({}, {}, change):
        vectors = base.initializer_row("cat").expand(1, 1, -1).clone()
        settings = InvertSettings(**{"lr": 0.01, "steps": 5, "batch_size": 2, **options})
        for _ in invert(base, material, vectors, [settings]):
            pass
        ends.append(vectors.detach())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 3},
        {"alpha": 8.0},
        {"lr": 0.02},
        {"seed": 1},
        {"batch_size": 3},
        {"steps": 6},
        {"clip": 1e-3},
    ],
)
def test_each_setting_of_the_tuning_matters(base, subject, change):
    material = prepare(base, subject, ["<c>"])
    pivot = Pivot("<c>", "cat", base.initializer_row("cat")[None], torch.zeros(1, 16))
    ends = []
    for options in ({}, {}, change):
        s = FinetuneSettings(**{"lr": 0.01, "steps": 5, "batch_size": 2, **options})
        adapter = lora.attach(base.denoiser, s.rank, s.alpha, TARGETS, [s.seed])
        *_, last = finetune(base, adapter, material, [pivot], [s])
        ends.append(float(last.metrics["distance/delta_norm"]))
        lora.detach(adapter)
    assert ends[0] == ends[1] != ends[2]
    assert math.isfinite(ends[2])


def test_experiments_of_equal_seeds_share_their_draws_and_others_do_not(base, subject):
    material = prepare(base, subject, ["<c>"])
    batch = draw_batch(material, [0, 1, 0], 2, 1000, 3)
    for rows in (batch.latents, batch.noise, batch.timesteps, batch.prompts):
        first, _, third = rows.chunk(3)
        assert torch.equal(first, third)
    assert not torch.equal(*batch.noise.chunk(3)[:2])
    again = draw_batch(material, [0], 2, 1000, 3)
    assert torch.equal(again.noise, batch.noise[:2])
    assert not torch.equal(draw_batch(material, [0], 2, 1000, 4).noise, again.noise)


def test_latents_are_drawn_from_the_posterior(base, subject):
    material = prepare(base, subject, ["<c>"])
    wide = Material(material.mean, material.spread + 3, material.ids, material.prompts)
    gap = (
        draw_batch(wide, [0], 64, 1000, 0).latents
        - draw_batch(
            Material(material.mean, 0 * material.spread, material.ids, material.prompts),
            [0],
            64,
            1000,
            0,
        ).latents
    )
    assert float(gap.std()) == pytest.approx(float(wide.spread.mean()), rel=0.1)


def test_the_vocabulary_of_the_tiny_model_is_known(base):
    assert all(len(base.initializer_row(word)) == 16 for word in WORDS)
