"""The objective's options from the command line to what a run learns and tells."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from pti_pipeline.cli import main
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, InvertSettings
from pti_pipeline.studies.packs import Pack, split
from pti_pipeline.tracking.dataset import PICTURES
from pti_pipeline.tracking.find import fetch, find_runs
from pti_pipeline.values import experiments, parse_vary


@pytest.fixture
def invert(store, least_folder, pictures):
    """Invert for two steps with more options; the learned vector and the run's parameters."""

    def run(*options):
        words = [f"--base={least_folder}", f"--images={pictures}", "--initializer=cat", "--steps=2"]
        more = ["--token=<c>", "--sample-every=0", "--probes=0", "--device=cpu", *options]
        done = CliRunner().invoke(main, ["invert", *words, *more])
        assert done.exit_code == 0, done.output
        made = find_runs(step="invert")[-1]
        (vector,) = load_file(fetch(made, "pivot/learned_embeds.safetensors", store)).values()
        return vector.tolist(), made.params

    return run


def test_what_is_asked_for_is_trained_and_told(invert, store):
    (store / "prompts.txt").write_text("the cat {}\n")
    plain, params = invert()
    assert params["weighting"] == "none" and params["templates"] == ""
    ends = [plain]
    for option in ("crops=2", "flip=yes", f"templates={store / 'prompts.txt'}"):
        end, params = invert(f"--{option}")
        name, _, value = option.partition("=")
        assert params[name] == value
        assert end not in ends
        ends.append(end)


def test_shapes_are_trained_on_and_told(invert, store, pictures):
    for path in pictures.iterdir():
        (store / "wide").mkdir(exist_ok=True)
        Image.open(path).resize((40, 24)).save(store / "wide" / path.name)
    cut, params = invert(f"--images={store / 'wide'}")
    assert params["buckets"] == "no"
    squares = shown(store)
    kept, params = invert(f"--images={store / 'wide'}", "--buckets=yes")
    assert params["buckets"] == "yes" and kept != cut
    wide = shown(store)
    assert squares[0] / squares[1] == len([*pictures.iterdir()])
    assert wide[0] / wide[1] == pytest.approx(squares[0] / squares[1] * 5 / 3, rel=0.1)


def shown(store):
    """Width and height of the last run's training pictures."""
    with Image.open(fetch(find_runs(step="invert")[-1], PICTURES, store)) as picture:
        return picture.size


@pytest.mark.parametrize("text", ["offset_noise:0,0.1", "weighting:none,min-snr", "crops:1,2"])
def test_values_of_a_sweep_have_packs_of_their_own(text):
    runs = experiments((0.01, 0.1), (0, 1), parse_vary(text, InvertSettings), InvertSettings())
    packs = split(runs, 1)
    assert [len(pack) for pack in packs] == [4, 4]
    name = text.partition(":")[0]
    assert all(len({getattr(e, name) for e in pack}) == 1 for pack in packs)
    whole = Pack("invert", BaseSettings(), {"images": "x"}, packs[1], WatchSettings(), varied=name)
    assert Pack.from_json(whole.to_json()) == whole
    assert json.loads(whole.to_json())["experiments"][0][name] == getattr(packs[1][0], name)
