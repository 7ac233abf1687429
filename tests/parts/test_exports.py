"""Exported files, read by diffusers and as A1111's and ComfyUI's code reads them."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from safetensors.torch import load_file

from pti_pipeline import lora
from pti_pipeline.blending import LoRA
from pti_pipeline.bundle import Bundle, draw_bundles
from pti_pipeline.errors import ModelError
from pti_pipeline.exports import WRITERS, Character, read_lora
from pti_pipeline.headers import Facts
from pti_pipeline.low_rank import PREFIX
from pti_pipeline.pivot import Pivot, has_embedding_inside, load_embedding, save_pivot
from pti_pipeline.settings import FORMS, TARGETS, SampleSettings
from pti_pipeline.weights import read_weights, write_weights

RANK, ALPHA = 2, 6.0
PROMPT, SEED, STEPS = "a photo of {} on the beach", 5, 4
INSIDE = "bundle_emb.mochi.string_to_param.*"


def own_lora(base, folder, **more):
    """A random LoRA's file, as finetune leaves it; a larger one would amplify rounding."""
    adapter = lora.attach(base.denoiser, RANK, ALPHA, TARGETS, [0])
    for layer in adapter.layers.values():
        layer.up.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    state = lora.peft_state(adapter, 0)
    lora.detach(adapter)
    facts = {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS), **more}
    base.save_lora(state, facts, folder)
    return folder / "pytorch_lora_weights.safetensors"


@pytest.fixture
def kept(tmp_path):
    """Folder of the files that the forms are written from."""
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


@pytest.fixture(params=[1, 2])
def who(request, base, tiny_folder, kept):
    """A character of one or two vectors whose alpha is not its rank."""
    vectors = torch.randn(request.param, 16, generator=torch.Generator().manual_seed(2))
    pivot = Pivot("<mochi>", "cat", vectors, base.initializer_row("cat").expand_as(vectors))
    save_pivot(pivot, kept / "learned_embeds.safetensors")
    file = read_lora(own_lora(base, kept))
    told = {"tuning.lr": "0.01", "tuning.steps": "9"}
    place = str(tiny_folder), base.fingerprint
    facts = Facts("<mochi>", "cat", *place, 16, file.rank, file.alpha, "unet", told)
    return Character(pivot, kept / "learned_embeds.safetensors", file, facts, base)


def written(who, form, folder):
    path = folder / WRITERS[form][0].format(word=who.word)
    WRITERS[form][1](who, path)
    return path


def ours(who, with_lora=True):
    """Our own picture of the character."""
    tuned = LoRA(*who.base.load_lora(who.lora.path)) if with_lora else None
    bundle, how = Bundle(who.base.fingerprint, who.pivot, tuned), SampleSettings(STEPS, 3.0)
    return draw_bundles(who.base, [bundle], [PROMPT], [SEED], how)[0].astype(int)


def theirs(pipe, word):
    """Plain diffusers' picture."""
    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": STEPS, "guidance_scale": 3.0}
    start = torch.Generator().manual_seed(SEED)
    return np.asarray(pipe(PROMPT.replace("{}", word), generator=start, **how).images[0]).astype(
        int
    )


def opened(form, path, who, tiny_folder, folder):
    """A pipeline with a form opened as the docs say, and the character's word in it."""
    if form == "merged":
        return StableDiffusionPipeline.from_pretrained(path), "<mochi>"
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    if form == "diffusers":
        pipe.load_textual_inversion(str(path / "learned_embeds.safetensors"))
        pipe.load_lora_weights(str(path))
        return pipe, "<mochi>"
    if form == "bundle":
        weights = load_file(path)
        pipe.load_textual_inversion({"mochi": weights.pop(INSIDE)})
        pipe.load_lora_weights(weights)
        return pipe, "mochi"
    pipe.load_textual_inversion(str(written(who, "embedding", folder)), token="mochi")
    pipe.load_lora_weights(str(path))
    return pipe, "mochi"


@pytest.mark.parametrize("form", ["diffusers", "kohya", "bundle", "merged"])
def test_diffusers_draws_the_same_picture_from_every_form(form, who, tiny_folder, tmp_path):
    path = written(who, form, tmp_path)
    expected = ours(who)
    found = theirs(*opened(form, path, who, tiny_folder, tmp_path))
    assert np.abs(found - expected).max() <= 1  # of 255: sums round otherwise
    assert np.abs(ours(who, with_lora=False) - expected).max() > 20


def test_a_form_has_a_name_and_a_writer_each():
    assert tuple(WRITERS) == FORMS


def test_kohyas_names_are_the_fields_and_alpha_is_not_the_rank(who, tmp_path):
    found = load_file(written(who, "kohya", tmp_path))
    weights, _ = who.base.load_lora(who.lora.path)
    state = {f"unet.{n.removeprefix(PREFIX)}": t for n, t in weights.items()}
    expected = convert_state_dict_to_kohya(state)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        if name.endswith(".alpha"):
            assert (float(found[name]), float(tensor)) == (ALPHA, RANK)  # theirs would be weaker
        else:
            assert torch.equal(found[name], tensor)


def test_a_wrong_alpha_would_show(who, tiny_folder, tmp_path):
    path = written(who, "kohya", tmp_path)
    weights = {
        n: torch.tensor(2.0) if n.endswith("alpha") else t for n, t in load_file(path).items()
    }
    write_weights(path, weights, {})
    found = theirs(*opened("kohya", path, who, tiny_folder, tmp_path))
    assert np.abs(found - ours(who)).max() > 20


def test_the_embedding_reads_as_one_tensor_of_all_vectors(who, tmp_path):
    path = written(who, "embedding", tmp_path)
    assert path.name == "mochi.safetensors"
    assert list(load_file(path)) == ["emb_params"]
    assert torch.equal(load_embedding(path, [16]), who.pivot.embedding)


def test_the_bundle_splits_as_a1111_and_comfyui_split_it(who, tmp_path):
    weights = load_file(written(who, "bundle", tmp_path))
    assert set(weights) - {INSIDE} == set(load_file(written(who, "kohya", tmp_path)))
    (inside,) = [name for name in weights if not name.startswith("lora_unet_")]
    # extensions-builtin/Lora/networks.py: the first part, the word, and the key of a .pt file
    network, _, rest = inside.partition(".")
    word, vectors = rest.split(".", 1)
    assert (network, word, vectors.split(".", 1)) == (
        "bundle_emb",
        "mochi",
        ["string_to_param", "*"],
    )
    # comfy/sd1_clip.py, bundled_embed
    assert inside.startswith("bundle_emb.") and inside.endswith(".string_to_param.*")
    assert torch.equal(weights[inside], who.pivot.embedding)


def test_our_own_reader_takes_both_out_of_a_bundle(base, who, tmp_path):
    path, kohya = written(who, "bundle", tmp_path), written(who, "kohya", tmp_path)
    assert has_embedding_inside(path) and not has_embedding_inside(kohya)
    assert torch.equal(load_embedding(path, [16]), who.pivot.embedding)
    expected = ours(who)
    with base.lora_file(path):
        assert np.abs(ours(who, with_lora=False) - expected).max() <= 1
    with pytest.raises(ModelError, match="E412"):
        load_embedding(kohya, [16])


def test_merging_leaves_the_base_as_it_was_and_tells_no_place(base, who, tiny_folder, tmp_path):
    before = [p.clone() for p in base.denoiser.parameters()]
    layers, table = list(base.denoiser.parameters()), base.vocabulary().clone()
    size = len(base.tokenizer)
    path = written(who, "merged", tmp_path)
    after = list(base.denoiser.parameters())
    assert all(a is b for a, b in zip(layers, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(base.vocabulary(), table) and len(base.tokenizer) == size
    told = "".join(file.read_text("utf-8") for file in path.rglob("*.json"))
    assert str(tiny_folder) not in told and "_name_or_path" not in told


@pytest.mark.parametrize("form", ["diffusers", "embedding", "kohya", "bundle"])
def test_headers_are_text_and_tell_what_was_trained_but_no_place(form, who, tiny_folder, tmp_path):
    path = written(who, form, tmp_path)
    for file in [path] if path.is_file() else path.iterdir():
        _, header = read_weights(file)
        assert header["pti.token"] == "<mochi>" and header["pti.base"] == tiny_folder.name
        assert (header["pti.rank"], header["pti.alpha"]) == ("2", "6")
        assert header["pti.tuning.lr"] == "0.01"
        assert header["modelspec.title"] == file.stem
        assert not any(str(tiny_folder.parent) in value for value in header.values())
        data = file.read_bytes()
        digest = sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
        assert header["modelspec.hash_sha256"] == f"0x{digest}"
        if form in ("kohya", "bundle"):
            assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("2", "6")
            assert (header["ss_learning_rate"], header["ss_max_train_steps"]) == ("0.01", "9")
            assert header["ss_output_name"] == file.stem


@pytest.mark.parametrize(("case", "code"), [("nan", "E403"), ("ranks", "E421"), ("kohya", "E405")])
def test_a_lora_that_would_draw_other_pictures_is_refused(base, kept, case, code):
    path = own_lora(base, kept, **({"timestep_rank": 1000} if case == "ranks" else {}))
    weights, header = read_weights(path)
    if case == "nan":
        next(iter(weights.values()))[0] = torch.nan
        write_weights(path, weights, header)
    elif case == "kohya":
        write_weights(path, weights, {"lora_adapter_metadata": json.dumps({"unet.r": 2})})
    with pytest.raises(ModelError, match=code):
        read_lora(path)


@pytest.mark.parametrize(
    ("width", "part", "name"),
    [
        (768, "unet", "stable-diffusion-v1"),
        (1024, "unet", "stable-diffusion-v2"),
        (2048, "unet", "stable-diffusion-xl-v1-base"),
        (2048, "transformer", "stable-diffusion-3-medium"),
        (2048, "", "stable-diffusion"),
    ],
)
def test_the_architecture_is_read_from_the_width_and_the_part(width, part, name):
    from pti_pipeline.headers import kohya, modelspec

    facts = Facts("<x>", "cat", "someone/sd", "f" * 64, width, 4, 8.0, part, {})
    assert modelspec(facts, "lora", "x", "x", "")["modelspec.architecture"] == f"{name}/lora"
    header = kohya(facts, "x", "")
    assert header["ss_v2"] == str(width == 1024)
    versions = {"stable-diffusion-v1": "sd_v1", "stable-diffusion-xl-v1-base": "sdxl_base_v1-0"}
    assert header.get("ss_base_model_version") == versions.get(name)
    assert header["ss_sd_model_name"] == "someone/sd"


@pytest.mark.parametrize("key", ["lora_adapter_metadata", "pti"])
@pytest.mark.parametrize("settings", ["[1]", "3", '"x"', "{"])
def test_settings_that_are_none_are_told_in_one_line(base, kept, key, settings):
    path = own_lora(base, kept)
    weights, header = read_weights(path)
    write_weights(path, weights, {**header, key: settings})
    for read in (read_lora, base.load_lora):
        with pytest.raises(ModelError, match="E405"):
            read(path)
