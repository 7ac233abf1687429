"""Tokens that two text encoders read: their files, as diffusers and as evaluate open them."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline
from registered import make_lora, make_pivot
from safetensors.torch import load_file, save_file

from pti_pipeline.characters import Characters, class_word, draw, encode
from pti_pipeline.cli import main
from pti_pipeline.errors import ModelError
from pti_pipeline.exports import WRITERS, Character, read_lora
from pti_pipeline.families import load
from pti_pipeline.headers import Facts
from pti_pipeline.pivot import (
    ENCODERS,
    has_embedding_inside,
    load_embedding,
    placeholder_tokens,
    save_pivot,
)
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.tracking.runs import open_run

TOKENS = placeholder_tokens("<mochi>", 2)
PROMPT = "a photo of {} on the beach"


@pytest.fixture(scope="module")
def loaded(families):
    return {name: load(str(families[name]), "cpu") for name in ("sd-noise", "sdxl", "sd3")}


def character(base, folder):
    """A character of two vectors and a LoRA, in files as the steps leave them."""
    made = make_pivot(base, "<mochi>", vectors=2)
    pivot = type(made)(made.token, "cat", made.embedding, made.start, base.widths)
    save_pivot(pivot, folder / "learned_embeds.safetensors")
    base.save_lora(*make_lora(base, alpha=6.0), folder)
    lora = read_lora(folder / "pytorch_lora_weights.safetensors")
    width = pivot.embedding.shape[1]
    facts = Facts("<mochi>", "cat", base.name, base.fingerprint, width, 2, 6.0, lora.part, {})
    return Character(pivot, folder / "learned_embeds.safetensors", lora, facts, base)


def written(who, form, folder):
    path = folder / WRITERS[form][0].format(word=who.word)
    WRITERS[form][1](who, path)
    return path


def pairs(pipe):
    """Text encoders that read the token, and their tokenizers."""
    return (pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2)


def load_both(pipe, vectors):
    """Give each text encoder of XL its own vectors, as docs/how-to/export.md says."""
    for name, (encoder, tokenizer) in zip(ENCODERS, pairs(pipe), strict=True):
        pipe.load_textual_inversion(
            vectors[name], token="<mochi>", text_encoder=encoder, tokenizer=tokenizer
        )


def assert_read(pipe, pivot):
    """Both tables hold the pivot's rows, each its own columns of them."""
    parts = pivot.embedding.split(pivot.widths, 1)
    for (encoder, tokenizer), part in zip(pairs(pipe), parts, strict=True):
        rows = encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(TOKENS)]
        assert torch.equal(rows, part)


def picture(pipe, prompt):
    pipe.set_progress_bar_config(disable=True)
    start = torch.Generator().manual_seed(5)
    how = {"num_inference_steps": 3, "guidance_scale": 3.0, "generator": start}
    return np.asarray(pipe(prompt, **how).images[0]).astype(int)


def ours(who, lora):
    """Our own picture, with the LoRA of a file."""
    with who.base.lora_file(lora):
        named = Characters("<mochi>", who.pivot.embedding[None])
        return to_uint8(draw(who.base, named, [PROMPT], [5], SampleSettings(3, 3.0)))[0, 0]


def test_diffusers_reads_both_parts_of_a_token_of_xl(loaded, families, tmp_path):
    who = character(loaded["sdxl"], tmp_path)
    file = written(who, "diffusers", tmp_path) / "learned_embeds.safetensors"
    pipe = DiffusionPipeline.from_pretrained(families["sdxl"])
    with pytest.raises(ValueError, match="only has a single key"):
        pipe.load_textual_inversion(str(file))
    load_both(pipe, load_file(file))
    assert_read(pipe, who.pivot)
    named = Characters("<mochi>", who.pivot.embedding[None])
    states = pipe.encode_prompt(PROMPT.replace("{}", "<mochi>"), device="cpu")[0]
    found = encode(who.base, named, [PROMPT])[0, :, :-1]  # the last row is the pooled state
    torch.testing.assert_close(found, states)


def test_a_bundle_of_xl_is_opened_again(loaded, families, tmp_path):
    """By diffusers, which draws our picture, and by evaluate's readers."""
    base = loaded["sdxl"]
    who = character(base, tmp_path)
    path = written(who, "bundle", tmp_path)
    assert has_embedding_inside(path)
    assert torch.equal(load_embedding(path, base.widths), who.pivot.embedding)
    expected = ours(who, path)
    assert np.abs(ours(who, written(who, "kohya", tmp_path)) - expected.astype(int)).max() == 0
    pipe, weights = DiffusionPipeline.from_pretrained(families["sdxl"]), load_file(path)
    load_both(
        pipe, {name: weights.pop(f"bundle_emb.mochi.{name}") for name in ("clip_l", "clip_g")}
    )
    pipe.load_lora_weights(weights)
    assert_read(pipe, who.pivot)
    for encoder, tokenizer in pairs(pipe):  # see "Pooled states" in docs/reference/families.md
        for module in encoder.modules():
            if hasattr(module, "eos_token_id"):
                module.eos_token_id = tokenizer.eos_token_id
    found = picture(pipe, PROMPT.replace("{}", "<mochi>"))
    assert np.abs(found - expected).max() <= 1
    plain = to_uint8(draw(base, class_word("cat"), [PROMPT], [5], SampleSettings(3, 3.0)))[0, 0]
    assert np.abs(plain - expected.astype(int)).max() > 20


def test_stable_diffusion_3_opens_the_merged_form_alone(loaded, tmp_path):
    """Its pipeline in diffusers has no loader of embeddings."""
    assert not hasattr(StableDiffusion3Pipeline, "load_textual_inversion")
    who = character(loaded["sd3"], tmp_path)
    assert set(load_file(written(who, "embedding", tmp_path))) == {"clip_l", "clip_g"}
    pipe = StableDiffusion3Pipeline.from_pretrained(written(who, "merged", tmp_path))
    assert_read(pipe, who.pivot)


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_evaluate_reads_our_embedding_of_two_widths(loaded, family, tmp_path):
    base = loaded[family]
    who = character(base, tmp_path)
    for path in (who.pivot_file, written(who, "embedding", tmp_path)):
        assert torch.equal(load_embedding(path, base.widths), who.pivot.embedding)


def test_two_widths_are_told_by_their_names_and_not_by_their_order(tmp_path):
    path = tmp_path / "x.safetensors"
    one, other = torch.rand(3, 16), torch.rand(3, 24)
    for names in (("clip_l", "clip_g"), ("a.clip_l", "a.clip_g"), ("z_clip_l", "a_clip_g")):
        save_file(dict(zip(names, (one, other), strict=True)), path)
        assert torch.equal(load_embedding(path, (16, 24)), torch.cat([one, other], 1))
    save_file({"clip_l": one[0], "clip_g": other[0]}, path)  # one vector, without its axis
    assert load_embedding(path, (16, 24)).shape == (1, 40)


@pytest.mark.parametrize(
    ("given", "widths", "told"),
    [
        ({"emb_params": (1, 16)}, (16, 24), r"holds 1x16, .*16 columns and one of 24 columns"),
        ({"clip_l": (1, 16), "clip_g": (1, 24)}, (16,), r"holds 1x16, 1x24, .*tensor of 16 col"),
        ({"clip_l": (1, 24), "clip_g": (1, 16)}, (16, 24), r"holds 1x24, 1x16, .*16 columns and"),
        ({"clip_l": (1, 16), "clip_g": (2, 24)}, (16, 24), r"holds 1x16, 2x24, .*16 columns and"),
    ],
    ids=["of one encoder", "of two encoders", "exchanged", "unequal numbers"],
)
def test_an_embedding_of_another_family_is_told_with_what_is_read(given, widths, told, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.ones(shape) for name, shape in given.items()}, path)
    with pytest.raises(ModelError, match=rf"^error\[E412\]: 'x.safetensors' {told}") as caught:
        load_embedding(path, widths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("made", "given"), [("sd-noise", "sdxl"), ("sdxl", "sd-noise")])
def test_a_pivot_is_not_tuned_on_a_base_of_another_family(
    loaded, families, made, given, pictures, store
):
    """Which base is expected and which was found is told, before anything is trained."""
    old, new = loaded[made], loaded[given]
    facts = {"step": "invert", "base": old.name, "base_fingerprint": old.fingerprint}
    facts |= {"token": "<c>", "initializer": "cat", "data_fingerprint": "0" * 64}
    with open_run("invert", {"vectors": 1}, {f"pti.{k}": v for k, v in facts.items()}) as run:
        pass
    words = [f"--pivot={run.id}", f"--images={pictures}", f"--base={families[given]}"]
    done = CliRunner().invoke(main, ["finetune", *words, "--device=cpu"])
    (line,) = done.output.splitlines()
    assert done.exit_code == 4
    assert line.startswith(f"error[E404]: the pivot was inverted on base '{families[made]}', not")
    assert f"(expected {old.fingerprint[:12]}, found {new.fingerprint[:12]})" in line
    assert [found.id for found in find_runs()] == [run.id]
