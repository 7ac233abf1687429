import json
import shutil

import pytest
import torch

from pti_pipeline import families
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.families.fingerprint import fingerprint as fingerprint_of
from pti_pipeline.families.schedules import Diffusion


def test_the_base_is_frozen(base):
    for part in (base.text_encoders[0], base.vae, base.denoiser):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())


def test_the_fingerprint_is_of_the_weights_and_of_what_they_predict(
    tiny_folder, tiny_epsilon_folder, base
):
    assert families.load(str(tiny_folder), "cpu").fingerprint == base.fingerprint
    other = families.load(str(tiny_epsilon_folder), "cpu")  # of the same weights
    assert other.fingerprint != base.fingerprint
    noise = base.scheduler.alphas_cumprod

    def fingerprint(levels):
        return fingerprint_of([base.denoiser], Diffusion(levels, False))

    before = fingerprint(noise)
    assert fingerprint(noise.flip(0)) != before
    with torch.no_grad():
        base.denoiser.conv_in.bias[0] += 1
    assert fingerprint(noise) != before


def test_half_precision_is_that_of_the_frozen_base(tiny_folder):
    base = families.load(str(tiny_folder), "cpu", "bf16")
    assert base.denoiser.dtype == torch.bfloat16
    states = base.condition(base.tokenize(["a photo of cat"], []))
    found = base.predict(torch.randn(1, 4, 8, 8), torch.tensor([5]), states)
    assert found.dtype == torch.float32


def test_latents_and_pictures_have_the_documented_shapes(base):
    mean, spread = base.encode_images(torch.zeros(2, 3, 16, 16))
    assert mean.shape == spread.shape == (2, 4, 8, 8)
    assert (spread > 0).all()
    pixels = base.decode(mean)
    assert pixels.shape == (2, 3, 16, 16)
    assert pixels.abs().max() <= 1


def test_placeholders_get_ids_beyond_the_vocabulary_and_leave_the_tokenizer_alone(base):
    size = len(base.tokenizer)
    ids = base.tokenize(["a <c> of a"], ["<c>", "<c>_1"])[0].tolist()
    assert ids[2:4] == [size, size + 1]
    assert len(base.tokenizer) == size == len(base.vocabulary())
    ids = base.tokenize(["a <d> of <c>"], ["<c>", "<c>_1", "<d>"])[0].tolist()
    assert (ids[2], ids[4:6]) == (size + 2, [size, size + 1])


def test_missing_models_and_unknown_families(tmp_path):
    with pytest.raises(ModelError, match="E401"):
        families.load(str(tmp_path), "cpu")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "OtherPipeline"}))
    with pytest.raises(ModelError, match=r"E406.*StableDiffusionPipeline"):
        families.load(str(tmp_path), "cpu")
    with pytest.raises(ModelError, match="E401"):
        families.load(str(tmp_path / "none.safetensors"), "cpu")


@pytest.mark.parametrize("index", ["{", "[]", "5", "{}", "[" * 9999])
def test_an_index_that_is_none(tmp_path, index):
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(ModelError, match=r"E401.*model_index"):
        families.load(str(tmp_path), "cpu")


def test_a_part_that_is_broken(tiny_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(ModelError, match="E401") as caught:
        families.load(str(broken), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", "E203"),
        ("<{}>", "E203"),
        ("<\x1b>", "E203"),
        ("<" + "x" * 64 + ">", "E203"),
        ("cat", "E204"),
        ("cat</w>", "E204"),
        ("<|endoftext|>", "E204"),
        ("hot", "E204"),  # in photo
    ],
)
def test_tokens_that_can_not_stand_for_a_character(base, token, code):
    with pytest.raises(UsageError, match=code):
        base.check_token(token)


@pytest.mark.parametrize("word", ["", "hippopotamus", "cat dog", "<|endoftext|>"])
def test_initializers_that_are_no_word(base, word):
    with pytest.raises(UsageError, match="E205"):
        base.initializer_row(word)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there():
    with pytest.raises(UsageError, match="E208"):
        families.choose_device("cuda")
    assert families.choose_device("auto").type in ("cpu", "mps")
