"""Where characters are drawn from, and what is refused."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from registered import write_run

from pti_pipeline.cli import main
from pti_pipeline.errors import ModelError
from pti_pipeline.steps.register import register
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.tracking.versions import fetch_bundle

pytestmark = pytest.mark.usefixtures("registry_store")


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
    assert result.exit_code == 4 and line.startswith("error[E425]: ") and "\n" not in line
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
        (["--model=models:/mei@champion,models:/mei@champion"], "E254", 2),
        (["--model=models:/mei@champion", "--weights=1,2"], "E253", 2),
        (["--model=models:/mei@champion", "--weights=much"], "E253", 2),
        (["--model=models:/mei@champion", "--weights=nan"], "E253", 2),
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
