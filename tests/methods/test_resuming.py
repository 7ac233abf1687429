"""A training that goes on from its kept state is the one that was not interrupted, bit for bit."""

import pytest
import torch
from interrupted import STEPS, check, follow

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.holding import Ground
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot
from pti_pipeline.regularizers import find, regularize
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.state import State
from pti_pipeline.tuning import finetune


@pytest.fixture
def material(base, pictures):
    return prepare(base, load_subject(pictures, 16), ["<c>"])


def test_an_inversion_goes_on(base, material):
    runs = [InvertSettings(lr, STEPS, 2, seed=k) for k, lr in enumerate((0.01, 0.1))]
    runs.append(InvertSettings(0.05, STEPS, 2, until_distance=0.1))
    start = base.initializer_row("cat").expand(3, 1, -1)

    def training(state):
        state = state or State.begin(3)
        return invert(base, material, start.clone(), runs, state), state

    check(training)


UPDATES = [
    {"optimizer": "prodigy", "lr": 1.0, "ema": 0.9},
    {"optimizer": "adam-8bit", "micro_batch": 1},
    {"ema": 0.5, "checkpointing": True},
]
"""Ways to update parameters, in which there is more to be remembered."""


@pytest.mark.parametrize("options", UPDATES)
def test_an_inversion_that_is_updated_otherwise_goes_on(base, material, options):
    usual = {"lr": 0.05, "steps": STEPS, "batch_size": 2, **options}
    runs = [InvertSettings(**usual, norm="vocabulary"), InvertSettings(**usual, norm="vocabulary")]
    start = base.initializer_row("cat").expand(2, 1, -1)

    def training(state):
        state = state or State.begin(2)
        return invert(base, material, start.clone(), runs, state), state

    check(training)


@pytest.mark.parametrize("options", UPDATES)
def test_a_tuning_that_is_updated_otherwise_goes_on(base, material, options):
    usual = {"lr": 0.05, "steps": STEPS, "batch_size": 2, **options}
    runs = [FinetuneSettings(**usual, weight_decay=wd) for wd in (0.0, 0.3)]
    start = base.initializer_row("cat")[None]
    pivot, adapters = Pivot("<c>", "cat", start + 0.1, start), []

    def training(state):
        if adapters:
            lora.detach(adapters.pop())
        adapters.append(lora.attach(base.denoiser, 2, 2.0, TARGETS, [0, 0]))
        state = state or State.begin(2)
        return finetune(base, adapters[0], material, [pivot] * 2, runs, state=state), state

    check(training)
    lora.detach(adapters.pop())


def fits_only(rows, base, monkeypatch):
    """Let the model run out of memory with more than some rows."""
    predict = base.predict

    def small(noisy, timesteps, states):
        if len(noisy) > rows and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("out of memory")
        return predict(noisy, timesteps, states)

    monkeypatch.setattr(base, "predict", small)


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_trainings_in_micro_batches_are_those_of_whole_ones_and_go_on(
    double_base, pictures, monkeypatch
):
    base, runs = double_base, [InvertSettings(0.01, STEPS, 4)]
    material = prepare(base, load_subject(pictures, 16), ["<c>"])
    start = base.initializer_row("cat").expand(1, 1, -1).double()
    tunings = [FinetuneSettings(lr=0.01, steps=STEPS, batch_size=4, regularizer="locality")]
    pivot = Pivot("<c>", "cat", start[0] + 0.01, start[0])

    def inverting(state):
        state = state or State.begin(1)
        return invert(base, material, start.clone(), runs, state), state

    def tuning(state):
        state = state or State.begin(1)
        for p, value in zip(adapter.parameters, fresh, strict=True):
            p.data = value.clone()
        return finetune(base, adapter, material, [pivot], tunings, terms, state), state

    adapter = lora.attach(base.denoiser, 2, 2, TARGETS, [0])
    fresh = [p.detach().clone() for p in adapter.parameters]
    terms = regularize(base, adapter, material, [pivot], ["a photo of {}"], tunings[0])
    for training, rows in ((inverting, 2), (tuning, 4)):
        seen, whole = follow(*training(None), STEPS)
        with monkeypatch.context() as patch:
            fits_only(rows, base, patch)
            pieces, kept = follow(*training(None), STEPS)
            assert kept["rows"].tolist() == [0, 2, 4] and whole["rows"].tolist() == [0, 4]
            for one, other in zip(seen, pieces, strict=True):
                for name, value in one.items():
                    torch.testing.assert_close(value, other[name], rtol=1e-6, atol=1e-8)
            check(training)


@pytest.mark.parametrize("adapted", ["denoiser", "encoders too", "magnitudes too"])
@pytest.mark.parametrize("regularizer", ["none", "locality"])
def test_a_tuning_goes_on(base, material, regularizer, adapted):
    usual = {"regularizer": regularizer, "reg_every": 3, "reg_latents": "training", "reg_bank": 6}
    runs = [FinetuneSettings(lr, STEPS, 2, seed=k, **usual) for k, lr in enumerate((0.01, 0.1))]
    start = base.initializer_row("cat")[None]
    pivot = Pivot("<c>", "cat", start + 0.1, start)
    more = {"encoders too": {"encoders": base.encoders}, "magnitudes too": {"dora": True}}
    adapters = []

    def training(state):
        if adapters:
            lora.detach(adapters.pop())
        adapters.append(
            lora.attach(base.denoiser, 2, 2.0, TARGETS, [0, 1], **more.get(adapted, {}))
        )
        ground = Ground(base, adapters[0], pivot, ("a photo of {}",), material, runs[0])
        with lora.disabled(adapters[0]):
            terms = [find(regularizer)(ground)] * 2
        state = state or State.begin(2)
        return finetune(base, adapters[0], material, [pivot] * 2, runs, terms, state), state

    check(training)
    lora.detach(adapters.pop())
