"""Which parts are on the device when they run: of real weights, and the meta device as a second.

It takes weights from the CPU and gives none back, so a part that came back from it would show.
"""

from contextlib import contextmanager

import pytest
import torch
from tiny_families import BUILDERS, build_families

from pti_pipeline import lora
from pti_pipeline.batches import Material
from pti_pipeline.families import load, placing
from pti_pipeline.families.fingerprint import fingerprint
from pti_pipeline.inversion import token_losses
from pti_pipeline.needs import step_of
from pti_pipeline.settings import TARGETS, FinetuneSettings, InvertSettings

TINY = [name for name in BUILDERS if name != "sd3"]
"""T5's ids must be read, which the meta device has not: see the test of parts alone."""


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    return build_families(tmp_path_factory.mktemp("placed"))


@pytest.fixture(params=TINY)
def base(request, families):
    return load(str(families[request.param]), "meta", offload=True)


def on_device(base):
    """Parts that are wholly on the device; each is wholly there or wholly on the CPU."""
    found = set()
    for name, models in base._parts.items():
        kinds = {t.device.type for m in models for t in (*m.parameters(), *m.buffers())}
        assert len(kinds) <= 1
        found |= {name} if kinds == {"meta"} else set()
    return found


@contextmanager
def seen(base):
    """Parts on the device whenever a part runs, by its name."""
    told, hooks = {}, []
    for name, models in base._parts.items():
        for model in models:

            def look(*_, name=name):
                told.setdefault(name, set()).update(on_device(base))

            hooks.append(model.register_forward_pre_hook(look))
    yield told
    for hook in hooks:
        hook.remove()


def test_nothing_is_on_the_device_before_it_is_used(base):
    assert on_device(base) == set()


def test_in_a_step_there_is_what_it_needs(base):
    with seen(base) as told:
        base.encode_images(torch.zeros(1, 3, base.resolution, base.resolution))
        assert on_device(base) == {placing.VAE}
        step_of(base, InvertSettings(batch_size=1))
    both = {placing.DENOISER, placing.ENCODERS}
    assert on_device(base) == both
    assert told[placing.DENOISER] == both
    with seen(base) as told:
        step_of(base, FinetuneSettings(batch_size=1, checkpointing=True))
    assert told == {placing.ENCODERS: {placing.ENCODERS}, placing.DENOISER: {placing.DENOISER}}


def test_sampling_takes_one_part_after_the_other(base):
    with torch.no_grad():
        states = base.condition(base.tokenize(["a photo"], []))
        assert on_device(base) == {placing.ENCODERS}
        base.predict(base.start_latents([0]), torch.zeros(1, device="meta"), states)
        assert on_device(base) == {placing.DENOISER}
        base.decode(base.start_latents([0]))
        assert on_device(base) == {placing.VAE}


def test_parts_wait_unchanged(base):
    before = base.fingerprint
    base.denoiser, base.text_encoders, base.vae  # noqa: B018
    placing.bring(base._places, placing.T5)
    parts = base._parts
    trained = (*parts[placing.ENCODERS], *parts[placing.VAE], *parts[placing.DENOISER])
    assert fingerprint(trained, base.schedule) == before


def test_a_lora_is_where_its_layers_are(base):
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    assert {p.device.type for p in adapter.parameters} == {"meta"}
    base.vae  # noqa: B018
    base.denoiser  # noqa: B018
    assert {la.linear.weight.device.type for la in adapter.layers.values()} == {"meta"}
    lora.detach(adapter)


def test_t5_comes_alone_and_shares_its_table():
    shared = torch.nn.Embedding(3, 4)
    t5 = torch.nn.ModuleList([shared, torch.nn.Sequential(shared, torch.nn.BatchNorm1d(4))])
    vae = torch.nn.Linear(2, 2)
    places = placing.waiting({placing.T5: (t5,), placing.VAE: (vae,)}, torch.device("meta"))
    placing.bring(places, placing.VAE)
    placing.bring(places, placing.T5)
    assert vae.weight.device.type == "cpu"
    assert {p.device.type for p in (*t5.parameters(), *t5.buffers())} == {"meta"}
    assert len([*t5.parameters()]) == 3


def test_on_a_cpu_everything_stays(families):
    base = load(str(families["sd-noise"]), "cpu", offload=True)
    assert base._places is None
    vectors = base.initializer_row("cat").expand(1, 1, -1).clone().requires_grad_()
    latents = base.start_latents([0])
    ids = base.tokenize(["a <c>"], ["<c>"])
    material = Material(latents, torch.zeros_like(latents), ids, ((0,),))
    token_losses(base, material, vectors, [0], 1, 0, slice(1)).total.sum().backward()
    assert vectors.grad.abs().sum() > 0
