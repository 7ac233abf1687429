import math

import pytest
import torch
from torch import nn

from pti_pipeline import distance, dora
from pti_pipeline.optimizers import Manner, update
from pti_pipeline.state import State


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def random_lora(seed=0, experiments=3, rank=4):
    g = source(seed)
    shapes = [(10, 7), (5, 12), (10, 7)]
    downs = [torch.randn(experiments, rank, i, generator=g) for i, _ in shapes]
    ups = [torch.randn(experiments, o, rank, generator=g) for _, o in shapes]
    return downs, ups


def delta_norm(downs, ups, scale):
    return distance.lora_delta_norm(distance.by_shape(downs, ups), scale)


def test_lora_delta_norm_is_the_norm_of_merged_minus_base_weights():
    downs, ups = random_lora()
    scale = 2.0
    found = delta_norm(downs, ups, scale)
    for k in range(3):
        moved = []
        for down, up in zip(downs, ups, strict=True):
            layer = nn.Linear(down.shape[2], up.shape[1], bias=False).double()
            merged = layer.weight + scale * up[k].double() @ down[k].double()
            moved.append((merged - layer.weight).detach())
        plain = math.sqrt(sum(float(m.square().sum()) for m in moved))
        assert float(found[k]) == pytest.approx(plain, rel=1e-6)


def test_lora_delta_norm_does_not_depend_on_the_gauge():
    downs, ups = random_lora()
    turned = delta_norm([d * 8 for d in downs], [u / 8 for u in ups], 1.0)
    torch.testing.assert_close(turned, delta_norm(downs, ups, 1.0))


def test_lora_is_nowhere_at_the_start():
    downs, ups = random_lora()
    assert not delta_norm(downs, [u * 0 for u in ups], 1.0).any()


def test_lora_step_norm_is_the_norm_of_the_difference():
    (downs, ups), (was_downs, was_ups) = random_lora(0), random_lora(1)
    found = distance.lora_step_norm(
        distance.by_shape(downs, ups), distance.by_shape(was_downs, was_ups), 0.5
    )
    total = sum(
        (0.5 * (u.double() @ d.double() - v.double() @ c.double())).square().sum((1, 2))
        for d, u, c, v in zip(downs, ups, was_downs, was_ups, strict=True)
    )
    torch.testing.assert_close(found, total.sqrt(), rtol=1e-6, atol=0)


def test_delta_norm_and_angle_of_known_vectors():
    start = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    now = torch.tensor([[[0.0, 1.0]], [[3.0, 0.0]]])
    torch.testing.assert_close(
        distance.delta_norm(now, start), torch.tensor([math.sqrt(2), 2.0]).double()
    )
    torch.testing.assert_close(distance.angle(now, start), torch.tensor([90.0, 0.0]).double())


def test_norm_ratio_is_against_the_median_row():
    table = torch.diag(torch.tensor([1.0, 2.0, 9.0]))
    vectors = torch.tensor([[[4.0, 0.0, 0.0], [0.0, 6.0, 0.0]]])
    assert distance.norm_ratio(vectors, table).tolist() == [3.0]


def test_adam_walks_straight_under_a_constant_gradient_and_at_random_under_noise():
    steps, size, lr = 400, 2000, torch.tensor([0.01])
    results = []
    for noise in (0.0, 1.0):
        point = torch.zeros(1, size, requires_grad=True)
        optimizer = torch.optim.Adam([point], lr=0.01)
        for step in range(steps):
            g = source(step)
            point.grad = (1 - noise) + noise * torch.randn(1, size, generator=g)
            optimizer.step()
        moved = distance.delta_norm(point.detach(), torch.zeros(1, size))
        results.append(float(distance.efficiency(moved, lr * steps, size)))
    straight, wandering = results
    assert straight == pytest.approx(1.0, abs=1e-3)
    assert wandering == pytest.approx(1 / math.sqrt(steps), rel=0.25)


def test_prodigys_first_steps_go_farther_than_its_rates_say():
    """Its means are not corrected for their start at 0: 3.2 times at first, 6.6 at most."""
    point, nominal, state = torch.zeros(1, 9), torch.zeros(1).double(), State.begin(1)
    state.bind([point])
    everyone, free, told = torch.tensor([True]), torch.full((1,), math.inf), []
    for _ in range(30):
        slope = torch.full((1, 9), -1.0)
        _, applied = update(state, [slope], everyone, torch.ones(1), free, Manner("prodigy"))
        nominal += applied.detach()
        moved = distance.delta_norm(point.detach(), torch.zeros(1, 9))
        told.append(float(distance.efficiency(moved, nominal, 9)))
    assert told[0] == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-4)
    assert min(told) > 1 and max(told) < 6.6


def test_what_follows_from_the_distances():
    one = torch.ones(2)
    values = distance.derived(one.double() * 2, one.double() * 4, one * 0.5, 4)
    assert values["distance/straightness"].tolist() == [0.5, 0.5]
    assert values["distance/efficiency"].tolist() == [2.0, 2.0]
    assert values["distance/log10"][0] == pytest.approx(math.log10(2))


def test_a_tiny_step_keeps_its_digits():
    downs, ups = random_lora()
    downs, ups = [d.double() for d in downs], [u.double() for u in ups]
    small = [u + 1e-7 for u in ups]
    found = distance.lora_step_norm(
        distance.by_shape(downs, small), distance.by_shape(downs, ups), 1.0
    )
    squares = [
        (torch.full_like(u, 1e-7) @ d).square().sum((1, 2)) for d, u in zip(downs, ups, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(squares).sum(0).sqrt(), rtol=1e-6, atol=0)


def dora_layers(generator, experiments=2):
    """Weights, and a DoRA's values now and shortly before, of two layers of unequal shape."""
    layers = []
    for out, wide in ((6, 5), (3, 8)):
        weight = torch.randn(out, wide, generator=generator)
        now = [torch.randn(experiments, *s, generator=generator) for s in ((2, wide), (out, 2))]
        magnitude = 1 + torch.rand(experiments, out, generator=generator)
        before = [t + 1e-4 * torch.randn(t.shape, generator=generator) for t in (*now, magnitude)]
        layers.append((weight, (*now, magnitude), before))
    return layers


def test_distances_of_a_dora_are_those_of_its_explicit_weights():
    scale, layers = 0.7, dora_layers(torch.Generator().manual_seed(0))

    def explicit(values, k):
        found = []
        for (weight, *_), (down, up, magnitude) in zip(layers, values, strict=True):
            turned = weight.double() + scale * up[k].double() @ down[k].double()
            length = turned.norm(dim=1, keepdim=True)
            found.append((magnitude[k].double()[:, None] * turned / length - weight).flatten())
        return torch.cat(found)

    now, before = [la[1] for la in layers], [la[2] for la in layers]
    ours = [
        [dora.measured(la[0], *values, scale) for la, values in zip(layers, each, strict=True)]
        for each in (now, before)
    ]
    travelled, stepped = dora.delta_norm(ours[0], scale), dora.step_norm(*ours, scale)
    for k in range(2):
        torch.testing.assert_close(travelled[k], explicit(now, k).norm())
        step = (explicit(now, k) - explicit(before, k)).norm()
        torch.testing.assert_close(stepped[k], step, rtol=1e-7, atol=0)
        down, up, magnitude = (t[k].double() for t in now[0])
        change = dora.change(layers[0][0].double(), down, up, magnitude, scale)
        torch.testing.assert_close(change.flatten(), explicit(now, k)[: change.numel()])
    assert float(dora.step_norm(ours[0], ours[0], scale).max()) == 0
