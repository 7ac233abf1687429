"""Optimizers of several experiments at once, against each alone and against what is published."""

import math

import pytest
import torch

from pti_pipeline import settings
from pti_pipeline.optimizers import FIRST, OPTIMIZERS, Manner, update
from pti_pipeline.state import State

EVERYONE = torch.ones(3, dtype=torch.bool)
RATES = torch.tensor([1.0, 0.3, 3.0])
FREE = torch.full((3,), math.inf)


def start(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    shapes = (3, 4, 70), (3, 50)
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def slopes(parameters):
    """Gradients of a valley that is steep in some directions and flat in others."""
    total = 0.0
    for p in parameters:
        steep = torch.logspace(-3, 1, p[0].numel(), dtype=p.dtype).reshape(p.shape[1:])
        total = total + (steep * (p - 0.7).square()).sum() + (p**4).sum() / 40
    return torch.autograd.grad(total, parameters)


def descend(parameters, lr, steps, name, going=EVERYONE, change=None, **more):
    """Train; give the learning rates applied at each step, and what was remembered at the end."""
    state, applied = State.begin(len(lr)), []
    state.bind(parameters)
    for step in range(steps):
        gradients = slopes(parameters)
        if change:
            change(step, gradients)
        manner = Manner(name, **more)
        _, rates = update(state, gradients, going[: len(lr)], lr, FREE[: len(lr)], manner)
        applied.append(rates.clone())
    return torch.stack(applied), state


def test_every_name_of_the_settings_is_an_optimizer():
    assert tuple(OPTIMIZERS) == settings.OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_experiment_in_a_pack_is_bit_for_bit_what_it_is_alone(name):
    lr = RATES if name == "prodigy" else RATES / 100
    packed = start()
    rates, _ = descend(packed, lr, 60, name)
    for k in range(3):
        alone = [p[k : k + 1].clone() for p in start()]
        own, _ = descend(alone, lr[k : k + 1], 60, name)
        assert torch.equal(own[:, 0], rates[:, k])
        assert all(torch.equal(p[0], q[k]) for p, q in zip(alone, packed, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_experiment_without_a_finite_gradient_is_nothing_to_the_others(name):
    ends = []
    for ill in (False, True):

        def spoil(step, gradients, ill=ill):
            if ill and step >= 9:
                gradients[0][1, 2, 3] = math.nan

        ends.append(start())
        _, state = descend(ends[-1], RATES / 100, 30, name, change=spoil)
        assert state.values.isfinite().all()
    for healthy, ill in zip(*ends, strict=True):
        assert torch.equal(healthy[[0, 2]], ill[[0, 2]]) and not torch.equal(healthy[1], ill[1])


@pytest.mark.parametrize("decay", [(0.0, 0.0, 0.0), (0.5, 0.0, 2.0)])
def test_weight_decay_is_torchs_adamw_for_each_experiment(decay):
    lr, packed = RATES.double() / 100, start(torch.float64)
    descend(packed, lr, 60, "adam", decay=decay)
    for k in range(3):
        theirs = [p[k].clone().requires_grad_() for p in start(torch.float64)]
        adamw = torch.optim.AdamW(theirs, lr=float(lr[k]), weight_decay=decay[k])
        for _ in range(60):
            for p, slope in zip(theirs, slopes([p[None] for p in theirs]), strict=True):
                p.grad = slope[0]
            adamw.step()
        for p, q in zip(theirs, packed, strict=True):
            torch.testing.assert_close(q[k].detach(), p.detach(), rtol=1e-9, atol=1e-9)


def test_weight_decay_beside_means_in_8_bits_is_that_beside_exact_ones():
    ends, lr = [], RATES / 100
    for name in ("adam", "adam-8bit"):
        for decay in ((), (0.0, 0.5, 2.0)):
            ends.append(start())
            descend(ends[-1], lr, 1, name, decay=decay)
    for first, *others in zip(start(), *ends, strict=True):
        plain, decayed, coarse, both = (p.detach() for p in others)
        shares = (lr * torch.tensor([0.0, 0.5, 2.0])).view(-1, *[1] * (first.ndim - 1))
        torch.testing.assert_close(coarse - both, shares * first, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(coarse, plain)  # whose first step is from the very gradient
        torch.testing.assert_close(both, decayed)


def test_prodigys_weight_decay_is_in_the_rates_that_it_applies():
    ends = []
    for decay in ((), (0.0, 0.0, 0.0), (0.0, 0.1, 0.0)):
        ends.append(start())
        descend(ends[-1], RATES, 100, "prodigy", decay=decay)
    for without, nothing, some in zip(*ends, strict=True):
        assert torch.equal(without, nothing)
        assert torch.equal(without[[0, 2]], some[[0, 2]])
        assert (some[1].norm() < without[1].norm()).all()


def test_adam_in_8_bits_ends_near_adam_and_remembers_a_quarter():
    ends, sizes, lr = [], [], RATES / 100
    for name in ("adam", "adam-8bit"):
        ends.append(torch.cat([p.flatten(1) for p in _descended(name, lr, sizes)], 1))
    exact, coarse = ends
    begin = torch.cat([p.flatten(1) for p in start()], 1)
    apart = (coarse - exact).norm(dim=1) / (exact - begin).norm(dim=1)
    assert (apart > 0).all() and (apart < 0.25).all()  # of slopes over four decades
    # 330 numbers are two blocks of 256, and of each a scale
    assert sizes == [3 * 2 * 330 * 4, 3 * 2 * 2 * (256 + 4)]


def _descended(name, lr, sizes):
    parameters = start()
    _, state = descend(parameters, lr, 100, name)
    sizes.append(sum(tensor.nbytes for tensor in state.memory.values()))
    return [p.detach() for p in parameters]


def published_prodigy(x, gradients, lr, steps):
    """Algorithm 4 of Mishchenko & Defazio (2024) for one experiment, line by line."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    first, r, d = x.clone(), 0.0, 1e-6
    s, m, v = (torch.zeros_like(x) for _ in range(3))
    applied = []
    for _ in range(steps):
        g = gradients(x)
        m = beta1 * m + (1 - beta1) * d * g
        v = beta2 * v + (1 - beta2) * d**2 * g**2
        r = math.sqrt(beta2) * r + (1 - math.sqrt(beta2)) * lr * d**2 * float(g @ (first - x))
        s = math.sqrt(beta2) * s + (1 - math.sqrt(beta2)) * lr * d**2 * g
        largest = max(d, r / float(s.abs().sum()))
        applied.append(lr * d)
        x = x - lr * d * m / (v.sqrt() + largest * eps)
        d = largest
    return x, applied


def test_prodigy_is_the_published_one_for_each_experiment():
    (ours,) = packed = [start(torch.float64)[1]]
    rates, state = descend(packed, RATES.double(), 300, "prodigy")
    for k in range(3):

        def gradients(x):
            x = x[None].clone().requires_grad_()
            return slopes([x])[0][0]

        x = start(torch.float64)[1][k]
        theirs, applied = published_prodigy(x, gradients, float(RATES.double()[k]), 300)
        torch.testing.assert_close(ours[k].detach(), theirs, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(rates[:, k], rates.new_tensor(applied), rtol=1e-9, atol=0)
    assert (rates.diff(dim=0) >= 0).all() and (rates[0] == FIRST * RATES.double()).all()
    assert len(state.memory["estimate"].unique()) == 3


def test_prodigy_finds_a_rate_by_itself_and_waits_for_a_first_gradient():
    p = [torch.full((1, 8), 5.0)]

    def flat(step, gradients):
        if step < 5:
            gradients[0].zero_()

    rates, _ = descend(p, torch.ones(1), 400, "prodigy", change=flat)
    assert (rates[:5] == FIRST).all() and 0.01 < float(rates[-1]) < 10
    assert float((p[0].detach() - 0.7).abs().max()) < 1.5
