"""Models in single files and under hub ids, opened offline from copies of the hub in a folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS
from original_layout import cache, save_single
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from pti_pipeline.errors import ModelError
from pti_pipeline.families import FAMILIES, load
from pti_pipeline.families.single_file import ENCODERS

HOMES = {
    kind: facts["pretrained_model_name_or_path"]
    for kind, facts in DIFFUSERS_DEFAULT_PIPELINE_PATHS.items()
}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty copy of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def _v1(folder):
    """As many blocks as Stable Diffusion 1.x has, by which it is told."""
    pipe = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=2,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=16,
    )
    return pipe


def _xl(folder):
    """As many layers in the second encoder as XL has at least, by which it is told."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    shape = {**pipe.text_encoder_2.config.to_dict(), "num_hidden_layers": 10}
    pipe.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**shape))
    return pipe


def _sd35(folder):
    """As many blocks as 3.5 large has, by which it is told."""
    pipe = StableDiffusion3Pipeline.from_pretrained(folder)
    facts = {**pipe.transformer.config, "num_layers": 38, "dual_attention_layers": ()}
    pipe.transformer = SD3Transformer2DModel(**{k: facts[k] for k in facts if k[0] != "_"})
    pipe.text_encoder.text_projection.weight.data = torch.eye(16)  # the files hold none
    return pipe


BUILDERS = {"v1": ("sd-velocity", _v1), "xl_base": ("sdxl", _xl), "sd35_large": ("sd3", _sd35)}


@pytest.fixture(scope="module")
def kept(families, tmp_path_factory):
    """Each kind as a folder and as a file; weights are drawn at random."""
    place, made = tmp_path_factory.mktemp("kept"), {}
    for kind, (family, build) in BUILDERS.items():
        torch.manual_seed(0)
        pipe = build(families[family])
        pipe.save_pretrained(place / kind)
        made[kind] = place / kind, save_single(pipe, place / f"{kind}.safetensors")
    return made


def answer(base):
    noisy = torch.randn(base.start_latents([0]).shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        states = base.condition(base.tokenize(["a photo of cat"], []))
        return base.predict(noisy, torch.full((1,), 500), states)


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_single_file_is_the_model_of_the_folder(kind, kept, hub):
    folder, path = kept[kind]
    cache(hub, HOMES[kind], folder, "*.json")
    base, expected = load(str(path), "cpu"), load(str(folder), "cpu")
    assert base.fingerprint == expected.fingerprint
    assert (base.name, base.resolution) == (str(path), expected.resolution)
    assert torch.equal(answer(base), answer(expected))


def test_kinds_that_are_known_have_their_encoders_told():
    assert {*ENCODERS} == {kind for family in FAMILIES.values() for kind in family.files}


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_file_whose_configurations_are_nowhere(kind, kept):
    with pytest.raises(ModelError) as caught:
        load(str(kept[kind][1]), "cpu")
    line = str(caught.value)
    assert line.startswith("error[E401]: ") and "\n" not in line
    assert f"the configurations of {HOMES[kind]} can't be had" in line and "while online" in line


def test_a_file_without_t5_is_the_folder_without_it(kept, hub, tmp_path):
    folder, path = kept["sd35_large"]
    cache(hub, HOMES["sd35_large"], folder, "*.json")
    other = shutil.copytree(folder, tmp_path / "folder")
    index = json.loads((other / "model_index.json").read_text())
    index |= {part: [None, None] for part in ("text_encoder_3", "tokenizer_3")}
    (other / "model_index.json").write_text(json.dumps(index))
    weights = load_file(path)
    clips = {name: value for name, value in weights.items() if ".t5xxl." not in name}
    assert len(clips) < len(weights)
    save_file(clips, tmp_path / "incl_clips.safetensors")
    base = load(str(tmp_path / "incl_clips.safetensors"), "cpu")
    assert base.pipeline.text_encoder_3 is None and base.pipeline.tokenizer_3 is None
    assert torch.equal(answer(base), answer(load(str(other), "cpu")))


@pytest.mark.parametrize(
    ("kind", "without", "told"),
    [
        ("v1", "cond_stage_model", r"no clip and no open_clip\."),
        ("xl_base", "conditioner.embedders.0", r"no clip_sdxl\."),
        ("sd35_large", "text_encoders.clip_g", r"no open_clip_sd3\."),
        ("xl_base", "model.diffusion_model.middle_block", "can't load the base model"),
        ("v1", "first_stage_model.decoder.mid", "can't load the base model"),
    ],
)
def test_a_file_that_lacks_a_part_is_told_in_one_line(kind, without, told, kept, hub, tmp_path):
    """Even if the hub's copy has the part: the file would be another model."""
    folder, path = kept[kind]
    cache(hub, HOMES[kind], folder)
    rest = {n: value for n, value in load_file(path).items() if not n.startswith(without)}
    save_file(rest, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=rf"^error\[E401\]: .*{told}") as caught:
        load(str(tmp_path / "x.safetensors"), "cpu")
    assert "\n" not in str(caught.value)


def test_an_xl_file_of_velocities_is_refused(kept, hub, tmp_path):
    folder, path = kept["xl_base"]
    cache(hub, HOMES["xl_base"], folder, "*.json")
    save_file({**load_file(path), "v_pred": torch.zeros(0)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"E401.*velocities"):
        load(str(tmp_path / "x.safetensors"), "cpu")


def test_a_hub_id_loads_from_this_machines_copy(families, hub):
    for family in ("sd-velocity", "sdxl"):
        cache(hub, f"someone/{family}", families[family])
        base, expected = load(f"someone/{family}", "cpu"), load(str(families[family]), "cpu")
        assert (base.name, base.fingerprint) == (f"someone/{family}", expected.fingerprint)
        assert torch.equal(answer(base), answer(expected))


@pytest.mark.slow
def test_both_are_found_where_hf_home_says(kept, families, tmp_path):
    """In a process of its own: the libraries read the variable once."""
    cache(tmp_path / "home" / "hub", "someone/sd3", families["sd3"])
    folder, path = kept["xl_base"]
    cache(tmp_path / "home" / "hub", HOMES["xl_base"], folder, "*.json")
    code = (
        "import sys; from pti_pipeline.families import load\n"
        "print(*(load(base, 'cpu').fingerprint for base in sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "someone/sd3", str(path)],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [load(str(place), "cpu").fingerprint for place in (families["sd3"], folder)]
    assert done.stdout.split() == expected


def test_the_page_names_the_repositories():
    page = (Path(__file__).parents[2] / "docs/reference/families.md").read_text("utf-8")
    for kind in ENCODERS:
        assert f"| `{kind}` | `{HOMES[kind]}` |" in page
