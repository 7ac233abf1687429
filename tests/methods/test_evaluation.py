"""Statistics of samples in the world, on positions whose answer is known."""

import numpy as np
import pytest
import torch

from pti_pipeline import evaluation
from pti_pipeline.world import factors as f
from pti_pipeline.world.subjects import MOCHI, views


def drawn(rng, n):
    low, high = np.array([f.X_RANGE, f.Y_RANGE]).T
    return rng.uniform(low, high, (n, 2))


def test_copies_are_told_from_what_merely_stands_in_the_middle():
    rng = np.random.default_rng(0)
    factors = views(MOCHI, 6)
    training = np.stack([factors.x, factors.y], 1)
    usual = drawn(rng, 256)
    copies = training[rng.integers(0, 6, 256)] + rng.normal(0, 0.01, (256, 2))
    middle = np.array([0.5, 0.54]) + rng.normal(0, 0.01, (256, 2))
    found = {
        name: evaluation.copying(samples, usual, training)
        for name, samples in {"random": drawn(rng, 256), "copies": copies, "middle": middle}.items()
    }
    assert found["copies"]["leak/copying_p"] == 1 / 200
    assert found["random"]["leak/copying_p"] > 0.05
    assert found["middle"]["leak/copying_p"] > 0.05
    assert found["copies"]["leak/memorised"] > 0.8 > found["random"]["leak/memorised"]


def test_obedience_is_the_share_of_samples_that_show_all_that_was_asked():
    asked = [wanted for _, wanted in evaluation.EDITS]
    names = {name for wanted in asked for name in wanted}
    read = {n: torch.tensor([w.get(n, 0) for w in asked for _ in range(2)]) for n in names}
    assert evaluation.obedience(read, 2) == 1.0
    read["hat_color"] = read["hat_color"] + 1
    share = len(evaluation.PLACES) / len(asked)
    assert evaluation.obedience(read, 2) == pytest.approx(share)


def test_likeness_of_samples_without_any_mask_is_unknown():
    known = torch.nn.functional.normalize(torch.ones(3, 8), dim=1)
    assert evaluation.likeness(known, known) == pytest.approx(1.0)
    none = torch.full((64, 1), torch.nan)
    assert np.isnan(evaluation.likeness(none, known))
    assert np.isnan(evaluation.likeness(known, none))
