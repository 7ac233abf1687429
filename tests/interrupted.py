"""Trainings that are interrupted and go on, held against those that are not."""

from __future__ import annotations

import torch

from pti_pipeline.state import State

STEPS, PLACE = 12, 5


def follow(moments, state, until):
    """Numbers at each step, and what is kept at the last one."""
    seen = []
    for moment in moments:
        seen.append({**moment.metrics, **moment.derived, "going": moment.going})
        if moment.step == until:
            break
    return seen, {name: value.detach().clone() for name, value in state.tensors().items()}


def check(training, steps=STEPS, place=PLACE):
    """Compare one training with one that is interrupted; its state is given by ``training``."""
    seen, whole = follow(*training(None), steps)
    before, kept = follow(*training(None), place)
    after, again = follow(*training(State.load(kept, place, "cpu")), steps)
    assert len(seen) == len(before) + len(after) == steps
    for one, other in zip(seen, before + after, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
