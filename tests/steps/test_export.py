"""Characters of the embedded world, exported by the command and drawn by plain diffusers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from stores import store_in

from pti_pipeline import exports
from pti_pipeline.bundle import draw_bundles, load_bundles
from pti_pipeline.cli import main
from pti_pipeline.families import WORLD
from pti_pipeline.settings import SampleSettings
from pti_pipeline.steps.packing import find_bundle
from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.weights import read_weights

MOCHI = Path(__file__).parents[2] / "examples" / "mochi"
ALL = "diffusers,embedding,kohya,bundle,merged"
PROMPT, SEED = "a photo of {} on the beach", 5


def invoke(*words):
    return CliRunner().invoke(main, words)


def pti(*words):
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    return done.output


def run_of(output):
    return output.split("run ")[1].split(".")[0]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A store for the whole file."""
    folder = tmp_path_factory.mktemp("store")
    with store_in(folder):
        yield folder


@pytest.fixture(scope="module")
def pivot(shop):
    """Run id of an inversion of two vectors."""
    quick = ("--steps=3", "--sample-every=0", "--probes=0", "--device=cpu")
    return run_of(pti("invert", f"--images={MOCHI}", "--lr=0.03", "--vectors=2", *quick))


@pytest.fixture(scope="module")
def tuned(pivot):
    """Run id of a tuning that moves far, with an alpha that is not its rank."""
    quick = ("--steps=4", "--sample-every=0", "--probes=0", "--device=cpu")
    shape = ("--rank=2", "--alpha=6", "--lr=1e-2")
    return run_of(pti("finetune", f"--pivot={pivot}", *shape, *quick))


@pytest.fixture(scope="module")
def bundle(shop, tuned):
    """The tuning's bundle, as the registry holds it."""
    return find_bundle(tuned, shop / "packed")


@pytest.fixture(scope="module")
def exported(shop, tuned):
    output = pti("export", f"--model={tuned}", f"--form={ALL}", "--output=all")
    assert [Path(line).name for line in output.split()] == [
        "diffusers", "mochi.safetensors", "mochi-lora.safetensors", "mochi-bundle.safetensors",
        "merged",
    ]  # fmt: skip
    return shop / "all"


@pytest.fixture(scope="module")
def expected(bundle):
    """Our own picture of the character, and that of the pivot without the LoRA."""
    base, (whole,) = load_bundles([bundle], device="cpu")
    how = SampleSettings(20, 3.0)
    return [
        draw_bundles(base, [who], [PROMPT], [SEED], how)[0].astype(int)
        for who in (whole, replace(whole, lora=None))
    ]


def opened(form, folder):
    """A pipeline with a form opened as docs/how-to/export.md says, and the word to write."""
    if form == "merged":
        return StableDiffusionPipeline.from_pretrained(folder / "merged"), "<mochi>"
    pipe = StableDiffusionPipeline.from_pretrained(WORLD, safety_checker=None)
    if form == "diffusers":
        pipe.load_textual_inversion(str(folder / "diffusers/learned_embeds.safetensors"))
        pipe.load_lora_weights(str(folder / "diffusers"))
        return pipe, "<mochi>"
    if form == "bundle":
        weights = load_file(folder / "mochi-bundle.safetensors")
        vectors = weights.pop("bundle_emb.mochi.string_to_param.*")
        pipe.load_textual_inversion({"<mochi>": vectors})
        pipe.load_lora_weights(weights)
        return pipe, "<mochi>"
    pipe.load_textual_inversion(str(folder / "mochi.safetensors"), token="mochi")
    pipe.load_lora_weights(str(folder / "mochi-lora.safetensors"))
    return pipe, "mochi"


@pytest.mark.parametrize("form", ["diffusers", "kohya", "bundle", "merged"])
def test_plain_diffusers_draws_our_picture_from_every_form(exported, expected, form):
    pipe, word = opened(form, exported)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(
        PROMPT.replace("{}", word),
        num_inference_steps=20,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    gap = np.abs(np.asarray(picture).astype(int) - expected[0])
    assert gap.max() <= 1  # of 255, as docs/how-to/export.md says
    assert np.abs(expected[0] - expected[1]).max() > 50


def test_headers_tell_of_both_trainings_and_of_no_place(shop, pivot, tuned, exported):
    runs = {"inversion": get_run(pivot), "tuning": get_run(tuned)}
    files = [p for p in exported.rglob("*.safetensors") if "merged" not in p.parts]
    assert len(files) == 5
    for file in files:
        _, header = read_weights(file)
        for stage, run in runs.items():
            moved = float(header[f"pti.{stage}.distance.delta_norm"])
            assert moved == pytest.approx(run.metrics["distance/delta_norm"], rel=1e-5)
            assert header[f"pti.{stage}.run"] == run.id
        assert (header["pti.tuning.lr"], header["pti.inversion.lr"]) == ("0.01", "0.03")
        assert header["pti.base_fingerprint"] == runs["tuning"].tags["pti.base_fingerprint"]
        assert header["modelspec.date"].endswith("+00:00")
        assert not any(str(place) in v for v in header.values() for place in (shop, MOCHI, WORLD))
    _, header = read_weights(exported / "mochi-lora.safetensors")
    assert (header["ss_steps"], header["ss_seed"], header["ss_unet_lr"]) == ("4", "0", "0.01")


def test_an_export_is_a_run(exported, tuned):
    run = next(r for r in find_runs(step="export") if r.params["form"] == ALL)
    assert (run.status, run.name, run.tags["pti.exported"]) == ("FINISHED", "export mochi", tuned)


def test_a_sweep_that_chose_gives_its_choice(exported, tuned):
    with open_run("sweep", {}, {"pti.step": "sweep", "pti.choice": tuned}) as sweep:
        pass
    pti("export", f"--model={sweep.id}", "--form=kohya", "--output=swept")
    (weights, header), (same, told) = (
        read_weights(folder / "mochi-lora.safetensors")
        for folder in (exported, exported.parent / "swept")
    )
    assert told == header and all(torch.equal(weights[name], t) for name, t in same.items())


def test_a_bundle_of_another_store_tells_what_it_knows(shop, bundle):
    other = shutil.copytree(bundle, shop / "other")
    facts = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps({**facts, "run": "0" * 32}))
    pti("export", f"--model={other}", "--form=kohya", "--output=here")
    _, header = read_weights(shop / "here" / "mochi-lora.safetensors")
    assert header["pti.base"] == "world" and header["ss_network_alpha"] == "6"
    assert not any(name.startswith(("pti.tuning", "pti.inversion")) for name in header)
    assert "ss_learning_rate" not in header


def test_a_pivot_alone_has_no_lora(shop, pivot):
    assert "no LoRA: kohya, bundle." in pti("export", f"--model={pivot}", "--output=pivot")
    names = sorted(str(p.relative_to("pivot")) for p in Path("pivot").rglob("*.*"))
    assert names == ["diffusers/learned_embeds.safetensors", "mochi.safetensors"]
    _, header = read_weights(shop / "pivot" / "mochi.safetensors")
    assert "pti.rank" not in header and header["pti.inversion.steps"] == "3"


def error(code, *words):
    done = invoke("export", *words)
    lines = [line for line in done.output.splitlines() if line.startswith("error[")]
    assert len(lines) == 1 and lines[0].startswith(f"error[{code}]: "), done.output
    assert "Hint: " in lines[0] and "Traceback" not in done.output
    return done.exit_code


def test_nothing_there_is_overwritten(shop, tuned):
    words = (f"--model={tuned}", "--output=mine")
    Path("mine").mkdir()
    Path("mine/mochi-lora.safetensors").write_text("somebody's own")
    assert error("E242", *words) == 2
    assert [p.name for p in Path("mine").iterdir()] == ["mochi-lora.safetensors"]
    pti("export", *words, "--form=embedding")
    assert error("E242", *words, "--form=embedding") == 2
    assert Path("mine/mochi-lora.safetensors").read_text() == "somebody's own"


def test_an_export_that_fails_leaves_nothing_half_written(shop, tuned, monkeypatch):
    def full(who, path):
        raise OSError(28, "No space left on device")

    writers = {**exports.WRITERS, "bundle": ("{word}-bundle.safetensors", full)}
    monkeypatch.setattr("pti_pipeline.steps.export.WRITERS", writers)
    assert error("E243", f"--model={tuned}", "--output=full") == 2
    assert list(Path("full").iterdir()) == []
    (run,) = [r for r in find_runs(step="export") if r.status == "FAILED"]
    assert run.tags["pti.error_code"] == "E243"


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["--form=ckpt"], "E240", 2),
        (["--form="], "E240", 2),
        (["--form=kohya,kohya"], "E202", 2),
        (["--model=nothing"], "E216", 2),
        (["--model=" + "0" * 32], "E210", 2),
        (["--model=models:/nothing@champion"], "E408", 4),
        (["--model={pivot}", "--form=kohya,bundle"], "E241", 2),
        (["--model={study}"], "E215", 2),
        (["--model={tuned}", "--output={file}"], "E243", 2),
        (["--model={tuned}", "--output={file}/inside"], "E243", 2),
        (["--model={tuned}", "--form=merged", "--base={other}"], "E404", 4),
        (["--model={tuned}", "--form=merged", "--base=nowhere"], "E401", 4),
        (["--model={broken}"], "E426", 4),
    ],
)
def test_mistakes_are_told_in_one_line_and_write_nothing(
    shop, pivot, tuned, tiny_folder, tmp_path, words, code, exit_code
):
    with open_run("study", {}, {"pti.step": "main"}) as study:
        pass
    (tmp_path / "file").write_text("x")
    (tmp_path / "bundle.json").write_text("{}")
    given = {"pivot": pivot, "tuned": tuned, "study": study.id, "file": tmp_path / "file"}
    given |= {"other": tiny_folder, "broken": tmp_path}
    before = len(find_runs(step="export"))
    filled = [word.format(**given) for word in words]
    assert error(code, "--output=wrong", *filled) == exit_code
    assert not Path("wrong").exists() and len(find_runs(step="export")) == before
