"""Bases in bfloat16 and float16: what is trained on them, kept and drawn."""

import pytest
import torch

from pti_pipeline import lora
from pti_pipeline.batches import Material, prepare
from pti_pipeline.characters import Characters, draw
from pti_pipeline.data import load_subject
from pti_pipeline.families import load
from pti_pipeline.families.placing import T5
from pti_pipeline.inversion import invert
from pti_pipeline.pivot import Pivot, load_pivot, save_pivot
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings, SampleSettings
from pti_pipeline.state import State
from pti_pipeline.tuning import finetune

FILE = "pytorch_lora_weights.safetensors"


def pivot_of(base, vectors):
    start = base.initializer_row("cat").expand_as(vectors)
    return Pivot("<c>", "cat", vectors, start, base.widths)


def character(base, pictures, folder):
    """Invert, tune denoiser and text encoders around it, and keep both as files."""
    material = prepare(base, load_subject(pictures, base.resolution), ["<c>"])
    vectors = base.initializer_row("cat").expand(1, 1, -1).clone()
    *_, first = invert(base, material, vectors, [InvertSettings(0.01, 2, 1)])
    save_pivot(pivot_of(base, vectors.detach()[0]), folder / "pivot.safetensors")
    pivot = load_pivot(folder / "pivot.safetensors")
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0], encoders=base.encoders)
    runs = [FinetuneSettings(lr=0.01, steps=2, batch_size=1)]
    *_, last = finetune(base, adapter, material, [pivot], runs)
    lora.detach(adapter)
    base.save_lora(lora.peft_state(adapter, 0), adapter.config.facts(), folder)
    assert {p.dtype for p in (vectors, *adapter.parameters)} == {torch.float32}
    assert all(p.isfinite().all() for p in (vectors, *adapter.parameters))
    assert all(moment.alive.all() for moment in (first, last))
    assert all(part.ne(0).any() for part in (pivot.embedding - pivot.start).split(base.widths, 1))
    moved = [name for name, layer in adapter.layers.items() if layer.up.ne(0).any()]
    assert {name.partition(".")[0] for name in moved} > {*base.encoders}


def drawn(base, folder):
    """The character's picture, from its files."""
    pivot, (state, facts) = load_pivot(folder / "pivot.safetensors"), base.load_lora(folder / FILE)
    adapter = lora.attach_states(base.denoiser, [state], facts, base.encoders)
    how = SampleSettings(3, 4.0)
    picture = draw(base, Characters("<c>", pivot.embedding[None]), ["a photo of {}"], [3], how)
    lora.detach(adapter)
    return picture


@pytest.mark.parametrize(
    ("folder", "precision"),
    [
        *((name, "bf16") for name in ("sd-noise", "sd-velocity", "sdxl", "sd3", "sd3-without-t5")),
        *((name, "fp16") for name in ("sd-noise", "sdxl", "sd3")),
    ],
    indirect=["folder"],
)
def test_a_character_is_trained_kept_and_drawn(folder, precision, pictures, tmp_path):
    base = load(str(folder), "cpu", precision)
    character(base, pictures, tmp_path)
    found, exact = drawn(base, tmp_path), drawn(load(str(folder), "cpu"), tmp_path)
    assert (found - exact).abs().max() < 0.1 < exact.std()


@pytest.mark.parametrize("folder", ["sd3"], indirect=True)
def test_in_float16_what_overflows_is_in_float32(folder):
    base = load(str(folder), "cpu", "fp16")
    (t5,) = base._parts[T5]
    assert base.vae.config.force_upcast and base.vae.dtype == torch.float32
    wide = {n for n, p in t5.named_parameters() if p.dtype == torch.float32}
    assert wide and all(name.endswith("wo.weight") for name in wide)
    assert load(str(folder), "cpu", "bf16").vae.dtype == torch.bfloat16


@pytest.mark.parametrize("folder", ["sdxl"], indirect=True)
def test_in_float16_gradients_of_large_pictures_are_no_zeros(folder):
    """A loss over many numbers has gradients that float16 rounds to zero, unless it is scaled."""
    seen = []
    for precision in ("fp32", "fp16"):
        base = load(str(folder), "cpu", precision)
        latents = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
        ids = base.tokenize(["a photo of <c>"], ["<c>"])
        material = Material(latents, torch.zeros_like(latents), ids, ((0,),))
        vectors = base.initializer_row("cat").expand(1, 1, -1).clone()
        pivot, states = pivot_of(base, vectors[0].clone()), (State.begin(1), State.begin(1))
        adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
        [*invert(base, material, vectors, [InvertSettings(0.01, 1, 4)], states[0])]
        runs = [FinetuneSettings(lr=0.01, steps=1, batch_size=4)]
        [*finetune(base, adapter, material, [pivot], runs, state=states[1])]
        lora.detach(adapter)
        seen.append([state.memory["mean"] for state in states])  # a tenth of the first gradient
    for exact, half in zip(*seen, strict=True):
        assert (half - exact).norm() < 5e-3 * exact.norm()
