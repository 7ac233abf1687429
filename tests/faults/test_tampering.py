"""Weights of a run that were changed behind MLflow's back, which checks no hash itself."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient
from registered import make_pivot, write_run
from safetensors.torch import save_file

from pti_pipeline.cli import main
from pti_pipeline.errors import ModelError
from pti_pipeline.pivot import save_pivot
from pti_pipeline.tracking.find import fetch, get_run
from pti_pipeline.tracking.runs import open_run


def flipped(at):
    def change(path, base):
        data = bytearray(path.read_bytes())
        data[at if at >= 0 else len(data) + at] ^= 1
        path.write_bytes(data)

    return change


def other(path, base):
    """A sound pivot, but another one."""
    save_pivot(make_pivot(base, "<t>", seed=9), path)


CHANGES = {
    "header's length": flipped(0),
    "header": flipped(20),
    "weights": flipped(-3),
    "last byte": flipped(-1),
    "longer": lambda path, base: path.write_bytes(path.read_bytes() + b"\0"),
    "shorter": lambda path, base: path.write_bytes(path.read_bytes()[:-4]),
    "empty": lambda path, base: path.write_bytes(b""),
    "another": other,
}


@pytest.fixture
def kept(base, store):
    """A run that holds a character, and where its pivot is."""
    run = get_run(write_run(base, "<t>", tags={"pti.pivot": "0" * 32}))
    place = MlflowClient().get_run(run.id).info.artifact_uri.removeprefix("file://")
    return run, Path(place) / "pivot" / "learned_embeds.safetensors"


def test_a_changed_file_is_refused_by_whatever_uses_it(base, kept):
    run, path = kept
    whole = path.read_bytes()
    for name, change in CHANGES.items():
        change(path, base)
        for words in (["generate", f"--model={run.id}"], ["register", f"--run={run.id}"]):
            told = CliRunner().invoke(main, words)
            assert told.exit_code == 4, (name, told.output)
            assert re.fullmatch(
                r"error\[E425\]: run .* pivot/learned_embeds\.safetensors has changed since it was "
                r"written \(expected [0-9a-f]{12}, found [0-9a-f]{12}\)\. Hint: .*\n",
                told.output,
            ), (name, told.output)
        path.write_bytes(whole)


def test_a_measurement_is_held_against_its_hash_too(store):
    with TemporaryDirectory() as folder, open_run("evaluate", {}, {"pti.step": "evaluate"}) as run:
        file = Path(folder) / "class.safetensors"
        save_file({"x": torch.zeros(1)}, file)
        run.log_artifact(file, "measured")
    found = get_run(run.id)
    assert [*fetch(found, "measured", store / "sound").iterdir()]
    place = MlflowClient().get_run(run.id).info.artifact_uri.removeprefix("file://")
    save_file({"x": torch.ones(1)}, Path(place) / "measured" / "class.safetensors")
    with pytest.raises(ModelError, match="E425"):
        fetch(found, "measured", store / "changed")


def test_a_file_that_is_gone_is_told_too(kept):
    run, path = kept
    path.unlink()
    told = CliRunner().invoke(main, ["export", f"--model={run.id}", "--output=x"])
    assert told.exit_code == 4 and told.output.startswith("error[E407]: ")
