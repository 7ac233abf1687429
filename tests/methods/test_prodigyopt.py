"""Prodigy beside the authors' own package, where that is installed: pip install prodigyopt."""

import math

import pytest
import torch

from pti_pipeline.optimizers import Manner, update
from pti_pipeline.state import State

RATES = (1.0, 0.3, 3.0)
STEPS = 300


def slopes(values):
    """Gradients of a valley that is steep in some directions and flat in others."""
    steep = torch.logspace(-3, 1, values.shape[-1], dtype=values.dtype)
    return 2 * steep * (values - 0.7) + values**3 / 10


def start():
    g = torch.Generator().manual_seed(0)
    return torch.randn(len(RATES), 50, generator=g, dtype=torch.float64)


def test_prodigy_ends_where_the_authors_package_does():
    prodigyopt = pytest.importorskip("prodigyopt")
    ours, state = start(), State.begin(len(RATES))
    state.bind([ours])
    lr = torch.tensor(RATES, dtype=torch.float64)
    everyone, free = torch.ones(len(RATES), dtype=torch.bool), torch.full_like(lr, math.inf)
    for _ in range(STEPS):
        update(state, [slopes(ours.detach())], everyone, lr, free, Manner("prodigy"))
    for k, rate in enumerate(RATES):
        theirs = start()[k].requires_grad_()
        optimizer = prodigyopt.Prodigy([theirs], lr=rate)
        for _ in range(STEPS):
            theirs.grad = slopes(theirs.detach())
            optimizer.step()
        moved = float((theirs.detach() - start()[k]).norm())
        assert moved > 0.1
        apart = float((ours[k].detach() - theirs.detach()).abs().max())
        print(f"rate {rate}: apart by {apart:.1e} of {moved:.1f}")
        assert apart < 1e-12
