"""How many experiments share a pass of a real training, and that it stays within what is free."""

from itertools import pairwise

import pytest

from pti_pipeline import lora, memory
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.families import load
from pti_pipeline.inversion import invert
from pti_pipeline.live import counted
from pti_pipeline.pivot import Pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.state import State
from pti_pipeline.tuning import finetune

K, ROWS = 7, 2


def inversions(base, material, state, count):
    vectors = base.initializer_row("cat").expand(count, 1, -1).clone()
    yield from invert(
        base, material, vectors, [InvertSettings(steps=2, batch_size=ROWS)] * count, state
    )


def tunings(base, material, state, count):
    row = base.initializer_row("cat")[None]
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, range(count))
    runs = [FinetuneSettings(steps=2, batch_size=ROWS)] * count
    yield from finetune(
        base, adapter, material, [Pivot("<c>", "cat", row, row)] * count, runs, state=state
    )
    lora.detach(adapter)


@pytest.mark.parametrize("train", [inversions, tunings])
def test_with_twice_the_memory_more_share_a_pass_that_stays_within_it(
    least_folder, pictures, monkeypatch, train
):
    """A CPU has the memory of the machine: what is free is said here, what is taken is counted."""
    base = load(str(least_folder), "cpu")
    material = prepare(base, load_subject(pictures, base.resolution), ["<c>"])

    def trained(free, count=K):
        monkeypatch.setattr(memory, "free_bytes", lambda _: free)
        state = State.begin(count)
        steps = train(base, material, state, count)
        next(steps)  # measures, and splits
        with counted(base.device) as live:
            next(steps)
        assert not [*steps]
        return max(b - a for a, b in pairwise(state.edges.tolist())), live.most

    one = trained(2**40, 1)[1]
    shared = []
    for free in (2.5 * one, 5 * one):
        together, most = trained(free)
        assert most <= free
        shared.append(together)
    few, many = shared
    assert 1 < few < many < K
    whole, most = trained(2**40)
    assert whole == K and most > 5 * one  # so that what is free did bound the others
