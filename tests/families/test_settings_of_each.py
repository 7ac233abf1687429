"""Settings of trainings in families with several text encoders and with a flow, by their effects.

What one encoder and an even schedule show of them is in ``tests/methods``.
"""

import pytest
import torch
from diffusers.training_utils import compute_snr
from interrupted import check
from torch.nn.attention import SDPBackend, sdpa_kernel

from pti_pipeline import lora
from pti_pipeline.batches import placed, prepare
from pti_pipeline.data import patterns_of
from pti_pipeline.families import load, placing
from pti_pipeline.families.recomputing import recomputed
from pti_pipeline.inversion import invert, token_losses
from pti_pipeline.live import held_bytes
from pti_pipeline.norms import median_norms
from pti_pipeline.objective import Objective
from pti_pipeline.pivot import Pivot
from pti_pipeline.regularizers import regularize
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings
from pti_pipeline.state import State
from pti_pipeline.tuning import finetune
from pti_pipeline.weighting import row_weights

TWO_ENCODERS = pytest.mark.parametrize("folder", ["sdxl", "sd3"], indirect=True)
TIMES = torch.tensor([1, 50, 250, 500, 750, 998])


def start_of(base, experiments, vectors=1):
    return base.initializer_row("cat").expand(experiments, vectors, -1).clone()


def pivot_of(base):
    start = start_of(base, 1)[0]
    return Pivot("<c>", "cat", start + 0.1, start, base.widths)


def inverted(base, material, runs, vectors=1):
    """Vectors at the end (K, n, H), where they started, and each step's numbers."""
    ends = start_of(base, len(runs), vectors)
    start = ends.clone()
    told = [{**m.metrics, **m.derived} for m in invert(base, material, ends, runs)]
    return ends.detach(), start, told


def tuned(base, material, runs, encoders=False):
    """Values of the LoRAs at the end, each flat, and each step's numbers."""
    parts = base.encoders if encoders else lora.NONE
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [e.seed for e in runs], encoders=parts)
    moments = finetune(base, adapter, material, [pivot_of(base)] * len(runs), runs)
    told = [{**m.metrics, **m.derived} for m in moments]
    lora.detach(adapter)
    return torch.cat([p.detach().flatten(1) for p in adapter.parameters], 1), told


@TWO_ENCODERS
def test_an_inversion_goes_on(base, subject):
    material = prepare(base, subject, ["<c>", "<c>_1"])
    usual = {"steps": 4, "batch_size": 1, "norm": "vocabulary", "ema": 0.5}
    runs = [InvertSettings(lr=lr, seed=k, **usual) for k, lr in enumerate((0.01, 0.1))]

    def training(state):
        state = state or State.begin(2)
        return invert(base, material, start_of(base, 2, 2), runs, state), state

    check(training, 4, 2)


@TWO_ENCODERS
def test_a_tuning_goes_on(base, subject):
    """Of DoRAs on denoiser and text encoders, held by a regularizer."""
    material, pivot = prepare(base, subject, ["<c>"]), pivot_of(base)
    usual = {"steps": 4, "batch_size": 1, "regularizer": "locality", "reg_latents": "training"}
    usual |= {"reg_bank": 2, "reg_every": 2, "ema": 0.5}
    runs = [FinetuneSettings(lr=lr, seed=k, **usual) for k, lr in enumerate((0.01, 0.1))]
    made = TARGETS, [0, 1], False, base.encoders, True
    adapters = []

    def training(state):
        if adapters:
            lora.detach(adapters.pop())
        adapters.append(lora.attach(base.denoiser, 2, 2.0, *made))
        around = material, [pivot] * 2
        terms = regularize(base, adapters[0], *around, patterns_of(subject, "<c>"), runs[0])
        state = state or State.begin(2)
        return finetune(base, adapters[0], *around, runs, terms, state), state

    check(training, 4, 2)
    lora.detach(adapters.pop())


@TWO_ENCODERS
def test_checkpointing_gives_the_same_trainings(base, subject):
    """Of two experiments; text encoders are trained too, or read what is learned."""
    material = prepare(base, subject, ["<c>"])
    usual = {"lr": 0.02, "steps": 2, "batch_size": 1}
    for train, kind in ((inverted, InvertSettings), (tuned, FinetuneSettings)):
        more = {"encoders": True} if kind is FinetuneSettings else {}
        ends, told = [], []
        for spared in (False, True):
            runs = [kind(seed=k, checkpointing=spared, **usual) for k in range(2)]
            end, *_, seen = train(base, material, runs, **more)
            ends.append(end)
            told.append(torch.stack([m["train/loss"] for m in seen]))
        assert torch.equal(*ends) and torch.equal(*told)


@TWO_ENCODERS
def test_checkpointing_holds_less(base, subject):
    material, vectors = prepare(base, subject, ["<c>"]), start_of(base, 1).requires_grad_()

    def held(models):
        def forward():
            with recomputed(models):
                return token_losses(base, material, vectors, [0], 4, 0, slice(4)).total

        return held_bytes(forward, base.device)

    whole, denoiser = held([]), held([base.denoiser])
    assert held([base.denoiser, *base.text_encoders]) < denoiser < 0.6 * whole


CHANGES = [
    {"weighting": "min-snr"},
    {"weighting": "debiased"},
    {"offset_noise": 0.1},
    {"timestep_range": "0,0.8"},
    {"timestep_bias": 1.0},
]


@TWO_ENCODERS
def test_what_is_descended_has_effects(base, subject):
    material = prepare(base, subject, ["<c>"])
    for train, kind in ((inverted, InvertSettings), (tuned, FinetuneSettings)):
        usual = {"lr": 0.01, "steps": 2, "batch_size": 1}
        ends = [train(base, material, [kind(**usual, **each)])[0] for each in ({}, *CHANGES)]
        for i, one in enumerate(ends):
            assert one.isfinite().all()
            assert not any(torch.equal(one, other) for other in ends[:i])


def test_weights_are_those_of_the_papers(base):
    times = base.drawn(TIMES)
    shape = (
        row_weights(base, times, Objective(weighting="min-snr")),
        row_weights(base, times, Objective(weighting="debiased")),
    )
    if base.denoiser_part == "transformer":
        level = times.double() / 1000
        snr = ((1 - level) / level).square()
        wanted = snr.clamp(max=5) * level.square(), level * (1 - level)
    else:
        snr = compute_snr(base.scheduler, times)
        velocity = base.scheduler.config.prediction_type == "v_prediction"
        whole = snr + 1 if velocity else snr
        wanted = snr.clamp(max=5) / whole, snr.sqrt() / whole
    for found, paper in zip(shape, wanted, strict=True):
        torch.testing.assert_close(found.double(), paper.double(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("folder", ["sd3"], indirect=True)
def test_a_range_and_a_bias_are_those_of_a_flows_draws(base):
    """A share of what the family draws: shifted by 3, four fifths reach a noise of 0.87."""
    even = torch.arange(1000)
    whole = base.drawn(even)
    part = base.drawn(placed(even, 1000, Objective(timestep_range="0.2,0.8")))
    assert torch.equal(part.unique(), whole[200:800])
    assert float(part.max()) == pytest.approx(874, abs=1)
    noisier = base.drawn(placed(even, 1000, Objective(timestep_bias=1.0)))
    assert float(noisier.median()) > float(whole.median()) + 50


@TWO_ENCODERS
def test_norms_and_distances_are_those_of_every_vector_in_every_encoder(base, subject):
    material = prepare(base, subject, ["<c>", "<c>_1"])
    usual = {"lr": 0.05, "steps": 2, "batch_size": 1}
    norms = median_norms(base.vocabulary(), base.widths).float()
    assert len(norms) == 2
    for norm in ("free", "vocabulary"):
        runs = [InvertSettings(norm=norm, seed=k, **usual) for k in range(2)]
        ends, start, told = inverted(base, material, runs, vectors=2)
        parts = [part.norm(dim=-1) for part in ends.split(base.widths, -1)]
        near = [torch.allclose(p, n, rtol=1e-5) for p, n in zip(parts, norms, strict=True)]
        assert near == [norm == "vocabulary"] * 2
        flat, before = ends.double().flatten(1), start.double().flatten(1)
        cosine = torch.nn.functional.cosine_similarity(flat, before)
        torch.testing.assert_close(told[-1]["distance/angle"], cosine.arccos().rad2deg())
        usual_norm = base.vocabulary().double().norm(dim=1).median()
        ratio = ends.double().norm(dim=-1).amax(1) / usual_norm
        torch.testing.assert_close(told[-1]["distance/norm_ratio"], ratio)
        moved = (flat - before).norm(dim=1)
        torch.testing.assert_close(told[-1]["distance/delta_norm"], moved)
    assert not torch.equal(ends[:, 0], ends[:, 1]), "two vectors are learned, not one twice"


def trained(base, subject):
    """What an inversion and a tuning end with, and decoded pictures, on the CPU."""
    material, usual = prepare(base, subject, ["<c>"]), {"lr": 0.01, "steps": 2, "batch_size": 1}
    vectors, *_ = inverted(base, material, [InvertSettings(**usual)])
    values, _ = tuned(base, material, [FinetuneSettings(**usual)])
    return [each.cpu() for each in (vectors, values, base.decode(material.mean))]


@TWO_ENCODERS
def test_parts_that_come_and_go_change_no_bit(base, subject):
    """With the CPU as the device that they come to: T5, which the meta device can't ask, too."""
    usual = trained(base, subject)
    if base._parts[placing.T5]:
        base._read.clear()  # what it said before
    base._places = placing.waiting(base._parts, base.device)
    ends = trained(base, subject)
    assert base._places.here == {placing.VAE}
    assert all(torch.equal(one, other) for one, other in zip(usual, ends, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: on a CPU all parts stay")
def test_offloading_changes_no_bit(folder, subject):
    """The same kernels run on the same numbers, wherever these waited meanwhile."""
    ends = []
    for offload in (False, True):
        base = load(str(folder), "cuda", offload=offload)
        with torch.backends.cudnn.flags(deterministic=True), sdpa_kernel(SDPBackend.MATH):
            ends.append(trained(base, subject))
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
