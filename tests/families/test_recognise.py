"""Which family a base model is of, and what is said of those that are of none."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from pti_pipeline.cli import main
from pti_pipeline.errors import ModelError
from pti_pipeline.families import FAMILIES, load
from pti_pipeline.families.recognise import recognise

KINDS = {kind: name for name, family in FAMILIES.items() for kind in family.files}
UNET = "model.diffusion_model."
CHECKPOINTS = {
    "StableDiffusionPipeline": {
        f"{UNET}output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1)
    },
    "StableDiffusionXLPipeline": {
        "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,)
    },
    "StableDiffusion3Pipeline": {
        f"{UNET}joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,),
        f"{UNET}pos_embed": (1, 36864, 4),
    },
    "xl_refiner": {
        "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,)
    },
    "flux-schnell": {f"{UNET}double_blocks.0.img_attn.norm.key_norm.scale": (128,)},
}
"""Weights that tell each, by their names in the checkpoints that their makers published."""


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_single_file_is_told_by_its_weights(family, tmp_path):
    shapes = CHECKPOINTS[family]
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape, dtype=torch.int8) for name, shape in shapes.items()}, path)
    absent = ["text_encoder_3", "tokenizer_3"] if family == "StableDiffusion3Pipeline" else []
    assert recognise(str(path), "x", KINDS) == (family, absent)
    if family not in FAMILIES:
        with pytest.raises(ModelError, match=f"E406.*is a {family}.*StableDiffusionXLPipeline"):
            load(str(path), "cpu")


def test_a_file_of_other_weights_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a.lora_A.weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"E401.*no checkpoint of a base model"):
        load(str(path), "cpu")
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{]]]]]]]")
    with pytest.raises(ModelError, match=r"E401.*can't load"):
        load(str(path), "cpu")


@pytest.mark.parametrize("part", ["text_encoder_2", "transformer", "scheduler"])
def test_a_folder_that_lacks_a_part_tells_what_is_there(part, families, tmp_path):
    folder = shutil.copytree(families["sd3"], tmp_path / "model")
    shutil.rmtree(folder / part)
    with pytest.raises(ModelError, match=rf"E401.*lacks {part}; .*vae") as caught:
        load(str(folder), "cpu")
    assert "\n" not in str(caught.value)


def test_a_part_that_the_family_needs_and_the_index_does_without(families, tmp_path):
    folder = shutil.copytree(families["sdxl"], tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "text_encoder": [None, None]}))
    with pytest.raises(ModelError, match=r"E401.*text_encoder") as caught:
        load(str(folder), "cpu")
    assert "\n" not in str(caught.value)


def test_a_hub_id_without_network_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"E401.*'someone/no-such-model'.*while online") as caught:
        load("someone/no-such-model", "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_two_tokenizers_that_know_other_words(families, family, tmp_path):
    """A placeholder has one id: both must mean the same by it."""
    folder = shutil.copytree(families[family], tmp_path / "model")
    second = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    second.add_tokens(["more"])
    second.save_pretrained(folder / "tokenizer_2")
    with pytest.raises(ModelError, match="its two CLIP tokenizers know other words"):
        load(str(folder), "cpu")


def test_the_command_tells_each_family_in_a_line():
    """What it is recognised by, and what it supports."""
    done = CliRunner().invoke(main, ["families"])
    assert done.exit_code == 0
    all_forms = "diffusers, embedding, kohya, bundle, merged"
    told = {
        "Stable Diffusion 1.x and 2.x": ("StableDiffusionPipeline", "v1, v2", all_forms),
        "Stable Diffusion XL": ("StableDiffusionXLPipeline", "xl_base", all_forms),
        "Stable Diffusion 3 and 3.5": (
            *("StableDiffusion3Pipeline", "sd3, sd35_medium, sd35_large"),
            "diffusers, embedding, merged",
        ),
    }
    lines = done.output.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [*told]
    for line, (pipeline, kinds, forms) in zip(lines, told.values(), strict=True):
        assert f": a folder or hub id of a {pipeline}, or a .safetensors file ({kinds}); " in line
        assert line.endswith(f"; exports {forms}.")
        family = FAMILIES[pipeline]
        assert f"predicts {family.predicts}; the token goes to {family.learns}; " in line
    assert {*KINDS} <= {*DIFFUSERS_DEFAULT_PIPELINE_PATHS}, "kinds as diffusers calls them"
