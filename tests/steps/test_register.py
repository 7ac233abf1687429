"""Registering characters in a real store: what a version holds, what is refused or changed."""

import io
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image
from registered import write_files, write_run

from pti_pipeline.bundle import file_hashes
from pti_pipeline.cli import main
from pti_pipeline.errors import DivergedError, ModelError, UsageError
from pti_pipeline.families import load
from pti_pipeline.families.license import base_license
from pti_pipeline.steps.gate import find_candidate, refusal
from pti_pipeline.steps.register import register
from pti_pipeline.studies.main import register as register_of_study
from pti_pipeline.tracking import registry
from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.versions import fetch_bundle
from pti_pipeline.tracking.write import add_metrics, add_tags

SURE = {"leak/pivot_p": 1e-4, "leak/class_p": 1e-4}


@pytest.fixture(scope="module")
def world():
    return load("world", "cpu")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """One store for all of these tests: each registers models of its own."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
            patch.delenv(name, raising=False)
        yield folder


def write_sweep(base, token, sound="yes", step="finetune", choice=(), **more):
    """A sweep whose only run is chosen; returns both ids."""
    with open_run("sweep", {}, {"pti.step": "sweep", "pti.stage": step}) as sweep:
        run = write_run(base, token, step, tags={"pti.sweep": sweep.id}, **more)
    numbers = {"distance": 1.8, "low": 1.2, "high": 2.4, "leak_auc": 0.51, "leak_p": 0.4}
    add_metrics(
        get_run(sweep.id), {f"choice/{k}": v for k, v in {**numbers, **dict(choice)}.items()}
    )
    verdict = {
        "choice": run, "choice_reason": "limit at distance 1.8 < 2 <b>", "certified": "yes",
        "bracketed": "yes", "sound": sound,
    }  # fmt: skip
    add_tags(get_run(sweep.id), {f"pti.{key}": value for key, value in verdict.items()})
    return sweep.id, run


@pytest.fixture(scope="module")
def mei(world):
    """A character that a sweep chose, registered."""
    sweep, run = write_sweep(world, "<mei>", vectors=2)
    made = register(sweep, "", "champion")
    version = MlflowClient().get_model_version_by_alias("mei", "champion")
    return SimpleNamespace(sweep=sweep, run=run, made=made, version=version)


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
    with pytest.raises(MlflowException, match=r"^error\[E245\]: steps is 1000") as caught:
        model.predict(asked, params={"steps": 1000})
    assert "\n" not in caught.value.serialize_as_json()
    assert caught.value.get_http_status_code() == 400


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


def test_what_was_not_measured_is_registered_and_said(world):
    run = write_run(world, "<blank>", metrics={"leak/pivot_p": math.nan})
    result = CliRunner().invoke(main, ["register", f"--run={run}"])
    assert result.exit_code == 0, result.output
    assert "Beware: the leak was not measured." in result.output


@pytest.mark.parametrize(
    ("broken", "code", "exit_code", "why"),
    [
        ({"metrics": {"leak/pivot_p": 0.01}}, "E420", 4, "copies its pictures' positions"),
        ({"metrics": {"editability/relative": 0.3}}, "E910", 10, "collapsed: editability 0.30"),
        ({"metrics": {"reconstruction/bank_gain": -0.2}}, "E910", 10, "collapsed: bank loss"),
    ],
)
def test_what_leaks_or_collapsed_is_refused_unless_forced(world, broken, code, exit_code, why):
    token = f"<{code}{len(why)}>"
    run = write_run(world, token, **broken)
    before = len(find_runs(step="register"))
    result = CliRunner().invoke(main, ["register", f"--run={run}"])
    line = result.output.strip()
    assert result.exit_code == exit_code and line.startswith(f"error[{code}]: ")
    assert "\n" not in line and why in line and "--force=yes" in line
    assert len(find_runs(step="register")) == before
    with pytest.raises(MlflowException):
        MlflowClient().get_registered_model(token.strip("<>"))
    result = CliRunner().invoke(main, ["register", f"--run={run}", "--force=yes"])
    assert result.exit_code == 0 and "Beware: forced: " in result.output
    version = MlflowClient().get_model_version_by_alias(token.strip("<>"), "champion")
    assert version.tags["pti.gate"].startswith("forced: ") and why in version.tags["pti.gate"]
    assert "| gate | forced: " in version.description and why in version.description
    assert find_runs(step="register")[-1].params["force"] == "yes"


def test_a_run_that_a_sweep_chose_is_judged_by_all_of_its_seeds(world):
    """One seed's test fires by chance; the pooled one of the choice decides."""
    sweep, run = write_sweep(world, "<a>", metrics=SURE)
    assert refusal(find_candidate(sweep)) is None
    sweep, run = write_sweep(world, "<b>", choice={"leak_p": 0.01})
    assert refusal(find_candidate(run)).code == "E420"
    sweep, run = write_sweep(world, "<c>", sound="no")
    error = refusal(find_candidate(run))
    assert error.code == "E420" and "limit at distance 1.8" in str(error)


def test_a_tuning_around_a_pivot_that_leaks_is_refused(world):
    pivot = write_run(world, "<p>", "invert", metrics=SURE)
    run = write_run(world, "<p>", tags={"pti.pivot": pivot})
    with pytest.raises(ModelError, match=r"E420.*the pivot of 'finetune lr=0.001'.*positions"):
        register(run, "", "champion")


@pytest.mark.slow
def test_a_study_keeps_what_leaks_under_another_alias(world):
    register(write_run(world, "<s>"), "study", "champion")
    run = write_run(world, "<s>", seed=1, metrics=SURE)
    with open_run("study", {}, {"pti.step": "main"}) as study:
        plan = SimpleNamespace(name="study", alias="champion")
        made = register_of_study(plan, study.id, run)
    assert made.params["alias"] == "candidate" and made.tags["pti.gate"].startswith("forced: ")
    aliases = MlflowClient().get_registered_model("study").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {
        "champion": 1,
        "candidate": 2,
    }


def test_runs_that_hold_no_character(world):
    diverged = write_run(world, "<x>", files=False, tags={"pti.outcome": "diverged"})
    with pytest.raises(DivergedError, match="E910"):
        register(diverged, "", "champion", force=True)
    with open_run("study", {}, {"pti.step": "main"}) as run:
        pass
    with pytest.raises(UsageError, match="E215"):
        register(run.id, "", "champion")
    gone = write_run(world, "<x>")
    MlflowClient().delete_run(gone)
    with pytest.raises(UsageError, match=r"E210.*deleted"):
        register(gone, "", "champion")
    with pytest.raises(ModelError, match="E407"):
        register(write_run(world, "<x>", files=False), "", "champion")
    client = MlflowClient()
    open_one = client.create_run("0", tags={"pti.step": "finetune", "pti.token": "<x>"}).info.run_id
    with pytest.raises(UsageError, match=r"E241.*running"):
        register(open_one, "", "champion")
    client.set_terminated(open_one, "FAILED")
    with pytest.raises(UsageError, match=r"E241.*failed"):
        register(open_one, "", "champion")


@pytest.mark.parametrize("name", ["a/b", "a:b", "..", "-x", "a b", "a" * 65, "<x>", "a'b"])
def test_names_that_no_model_can_have(mei, name):
    with pytest.raises(UsageError, match=r"E242.*letters, digits"):
        register(mei.run, name, "champion")


@pytest.mark.parametrize("alias", ["", "latest", "v3", "a b", "a/b"])
def test_aliases_that_no_version_can_have(mei, alias):
    with pytest.raises(UsageError, match=r"E242.*letters, digits"):
        register(mei.run, "", alias)


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("models:/mei@winner", "the aliases of 'mei' are"),
        ("models:/mei/7", "the aliases of 'mei' are"),
        ("models:/nobody@champion", "no registered version"),
        ("models:/mei", "names no registered version"),
        ("models:/../mei@x", "names no registered version"),
    ],
)
def test_versions_that_there_are_not(mei, tmp_path, uri, what):
    with pytest.raises(ModelError, match=r"E408") as caught:
        fetch_bundle(uri, tmp_path)
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_that_others_registered(tmp_path, mei):
    client = MlflowClient()
    client.create_registered_model("foreign")
    client.create_model_version("foreign", mei.version.source)
    with pytest.raises(ModelError, match=r"E408.*holds no character"):
        fetch_bundle("models:/foreign/1", tmp_path)


@pytest.mark.parametrize(
    "name", ["served.py", "bundle/bundle.json", "bundle/pytorch_lora_weights.safetensors"]
)
def test_a_version_whose_files_changed_since_is_refused(world, tmp_path, name):
    made = register(write_run(world, "<t>", seed=len(name)), f"t{len(name)}", "champion")
    version = MlflowClient().get_model_version(made.name, "1")
    model = MlflowClient().get_logged_model(version.source.removeprefix("models:/"))
    path = Path(model.artifact_location.removeprefix("file://"))
    path /= name if name == "served.py" else f"artifacts/{name}"
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    result = CliRunner().invoke(main, ["generate", f"--model=models:/{made.name}@champion"])
    line = result.output.strip()
    assert result.exit_code == 4 and line.startswith("error[E421]: ") and "\n" not in line
    assert Path(name).name in line and re.search(r"expected [0-9a-f]{12}, found [0-9a-f]{12}", line)


def test_where_characters_are_drawn_from(mei, tmp_path):
    """A version, a run, a sweep and a folder give the same pictures."""
    drawn = []
    bundle = str(fetch_bundle("models:/mei@champion", tmp_path / "fetched"))
    for model in ("models:/mei@champion", "models:/mei/1", mei.run, mei.sweep, bundle):
        output = tmp_path / str(len(drawn))
        words = [f"--model={model}", "--count=1", "--sampling-steps=3", f"--output={output}"]
        result = CliRunner().invoke(main, ["generate", *words])
        assert result.exit_code == 0, result.output
        drawn.append((output / "seed-0.png").read_bytes())
    assert len(set(drawn)) == 1


def test_several_characters_are_drawn_together(mei, world, tmp_path):
    register(write_run(world, "<bo>", seed=4, size=0.3), "", "champion")

    def generate(weights):
        words = [f"--weights={weights}", f"--output={tmp_path}", "--count=1", "--sampling-steps=3"]
        both = "--model=models:/mei@champion,models:/bo@champion"
        result = CliRunner().invoke(main, ["generate", both, "--prompt=<mei> and <bo>", *words])
        assert result.exit_code == 0, result.output
        return (tmp_path / "seed-0.png").read_bytes()

    usual = generate("")
    assert usual == generate("1,1")
    assert usual != generate("1,0.2")
    assert find_runs(step="generate")[-1].params["weights"] == "1,0.2"


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["--model=models:/mei@champion,models:/mei@champion"], "E244", 2),
        (["--model=models:/mei@champion", "--weights=1,2"], "E243", 2),
        (["--model=models:/mei@champion", "--weights=much"], "E243", 2),
        (["--model=models:/mei@champion", "--weights=nan"], "E243", 2),
        (["--model=models:/mei@champion", "--base={tiny}"], "E404", 4),
        (["--model=" + "0" * 32], "E210", 2),
        (["--model=models:/mei@winner"], "E408", 4),
    ],
)
def test_what_can_not_be_drawn_is_told_in_one_line(mei, tiny_folder, words, code, exit_code):
    filled = [word.replace("{tiny}", str(tiny_folder)) for word in words]
    result = CliRunner().invoke(main, ["generate", *filled])
    line = result.output.strip()
    assert result.exit_code == exit_code and line.startswith(f"error[{code}]: ")
    assert "\n" not in line and "Hint: " in line


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
