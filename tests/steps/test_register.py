"""What a registered version holds, in a real store."""

import io
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import BoundedSemaphore

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image
from registered import write_files, write_run

from pti_pipeline.errors import UsageError
from pti_pipeline.families.license import base_license
from pti_pipeline.hashes import file_hashes
from pti_pipeline.serving import LIMITS
from pti_pipeline.steps.register import register
from pti_pipeline.tracking import registry
from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.versions import fetch_bundle

pytestmark = pytest.mark.usefixtures("registry_store")


def test_a_version_carries_the_numbers_of_its_choice(mei, world):
    tags = mei.version.tags
    assert (mei.made.name, mei.made.version, mei.made.gate) == ("mei", "1", "passed")
    expected = {
        "distance.delta_norm": "1.5",
        "choice.distance": "1.8",
        "choice.low": "1.2",
        "choice.high": "2.4",
        "choice.leak_p": "0.4",
        "leak.pivot_auc": "0.51",
        "leak.pivot_auc_low": "0.43",
        "leak.pivot_auc_high": "0.59",
        "pti.choice_reason": "limit at distance 1.8 < 2 <b>",
        "pti.certified": "yes",
        "pti.bracketed": "yes",
        "pti.base": "world",
        "pti.base_fingerprint": world.fingerprint,
        "pti.base_license": "apache-2.0",
        "pti.gate": "passed",
        "pti.run": mei.run,
    }
    assert {key: tags[key] for key in expected} == expected
    assert mei.version.run_id == mei.run
    assert get_run(mei.run).status == "FINISHED"


def test_a_version_holds_both_parts_and_the_hash_of_every_file(mei, tmp_path):
    bundle = fetch_bundle("models:/mei@champion", tmp_path)
    assert {p.name for p in bundle.iterdir()} == {
        "README.md", "bundle.json", "learned_embeds.safetensors",
        "pytorch_lora_weights.safetensors", "samples.png",
    }  # fmt: skip
    found = file_hashes(bundle.parents[1])
    found.pop("registered_model_meta")
    assert {k: v for k, v in mei.version.tags.items() if k.startswith("sha256.")} == {
        f"sha256.{name}": value for name, value in found.items()
    }
    assert np.asarray(Image.open(bundle / "samples.png")).mean() == 90  # the run's last grid


def test_the_card_is_read_as_written(mei, tmp_path):
    """Markdown would take ``<mei>`` for HTML and lose it."""
    card = mei.version.description
    assert card.startswith("# `<mei>`\n")
    assert not re.search(r"(?<!`)<mei>|(?<!\\)<b>", card)
    for word in ("`world`", "apache-2.0", "1.5 (limit at 1.8, 95 % interval 1.2 to 2.4)", "0.510"):
        assert word in card
    assert "certified free" in card and "| gate | passed |" in card
    text = (fetch_bundle("models:/mei@champion", tmp_path) / "README.md").read_text()
    assert card in text and "![Samples at fixed seeds](samples.png)" in text
    assert text.startswith('---\nbase_model: "world"\nlicense: "apache-2.0"\n')


def test_its_signature_example_and_requirements(mei):
    info = mlflow.models.get_model_info("models:/mei@champion")
    assert {p.name for p in info.signature.params} == {"seed", "steps", "guidance", "count"}
    assert [c.name for c in info.signature.inputs] == ["prompt"]
    model = mlflow.pyfunc.load_model("models:/mei@champion")
    assert model.input_example["prompt"][0] == "a photo of <mei>"
    path = mlflow.artifacts.download_artifacts("models:/mei@champion/requirements.txt")
    lines = Path(path).read_text().split()
    assert len(lines) > 8 and all("==" in line for line in lines)


def test_it_is_loaded_and_asked_without_any_pickle(mei, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # as usual: it leaves .pyc files there
    mlflow.pyfunc.load_model("models:/mei@champion")
    files = fetch_bundle("models:/mei@champion", tmp_path).parents[1]
    assert {p.suffix for p in files.rglob("*") if p.is_file()} == {
        "", ".py", ".yaml", ".txt", ".json", ".md", ".png", ".safetensors",
    }  # fmt: skip
    for path in (p for p in files.rglob("*") if p.is_file()):
        assert path.read_bytes()[:1] != b"\x80", path  # where a pickle starts
    model = mlflow.pyfunc.load_model("models:/mei@champion")
    asked = pd.DataFrame({"prompt": ["a photo of <mei>", "a photo of cat"]})
    answer = model.predict(asked, params={"seed": 5, "steps": 4})
    named, plain = (np.asarray(Image.open(io.BytesIO(png))) for png in answer["png"])
    assert named.shape == (48, 48, 3) and list(answer["seed"]) == [5, 5]
    assert np.abs(named.astype(int) - plain).mean() > 1  # the token is read
    with pytest.raises(MlflowException, match=r"^error\[E255\]: steps is 1000") as caught:
        model.predict(asked, params={"steps": 1000})
    assert "\n" not in caught.value.serialize_as_json()
    assert caught.value.get_http_status_code() == 400


def test_errors_of_a_served_character_have_the_status_of_their_kind(mei):
    model = mlflow.pyfunc.load_model("models:/mei@champion")
    inner, asked = model.unwrap_python_model(), pd.DataFrame({"prompt": ["<mei>"]})
    served = inner.served
    state = {name: value * 1e30 for name, value in served.bundle.lora.state.items()}
    huge = replace(served.bundle, lora=replace(served.bundle.lora, state=state))
    cases = {
        ("E603", 504): replace(served, limits=replace(LIMITS, seconds=0)),
        ("E604", 429): replace(served, room=BoundedSemaphore(0)),
        ("E427", 500): replace(served, bundle=huge),
    }
    for (code, status), inner.served in cases.items():
        with pytest.raises(MlflowException, match=rf"^error\[{code}\]: ") as caught:
            model.predict(asked, params={"steps": 2})
        assert caught.value.get_http_status_code() == status
    inner.served = served
    assert len(model.predict(asked, params={"steps": 2})) == 1


def test_registering_again_gives_the_same_version_and_moves_the_alias(mei):
    again = register(mei.run, "", "candidate")
    assert (again.name, again.version) == ("mei", "1")
    client = MlflowClient()
    assert len(client.search_model_versions("name='mei'")) == 1
    assert set(client.get_registered_model("mei").aliases) == {"champion", "candidate"}


def test_two_at_once_make_one_version(world, tmp_path):
    run = write_run(world, "<kit>")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    write_files(world, bundle, "<kit>")
    words = "kit", bundle, run, "a photo of <kit>", {}, "card", "champion"
    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(lambda _: registry.register(*words), range(2)))
    assert versions == ["1", "1"]


def test_a_pivot_alone_is_registered_too(world, tmp_path):
    made = register(write_run(world, "<pivot>", "invert"), "", "champion")
    bundle = fetch_bundle(f"models:/{made.name}/1", tmp_path)
    assert not (bundle / "pytorch_lora_weights.safetensors").exists()
    assert "class word's" in MlflowClient().get_model_version("pivot", "1").description


@pytest.mark.parametrize("name", ["a/b", "a:b", "..", "-x", "a b", "a" * 65, "<x>", "a'b"])
def test_names_that_no_model_can_have(mei, name):
    with pytest.raises(UsageError, match=r"E252.*letters, digits"):
        register(mei.run, name, "champion")


@pytest.mark.parametrize("alias", ["", "latest", "v3", "a b", "a/b"])
def test_aliases_that_no_version_can_have(mei, alias):
    with pytest.raises(UsageError, match=r"E252.*letters, digits"):
        register(mei.run, "", alias)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: openrail++\n---\n# x", "openrail++"),
        ("---\ntags: [a]\nlicense: other\nlicense_name: my-own\n---\n", "my-own"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("---\ntags: []\n---\nlicense: mit", ""),
        ("license: mit", ""),
        (None, ""),
    ],
)
def test_a_base_models_license_is_what_its_card_says(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert base_license(str(tmp_path)) == expected
    assert base_license("world") == "apache-2.0"


def test_a_bundles_facts(mei, tmp_path):
    bundle = fetch_bundle("models:/mei@champion", tmp_path)
    facts = json.loads((bundle / "bundle.json").read_text())
    assert facts["run"] == mei.run and facts["token"] == "<mei>"
