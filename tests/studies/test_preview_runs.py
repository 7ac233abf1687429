"""Prompts and seeds of sample grids, from the command line to the pictures."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pti_pipeline.characters import Characters, draw
from pti_pipeline.cli import main
from pti_pipeline.errors import UsageError
from pti_pipeline.families import load
from pti_pipeline.figures import grid
from pti_pipeline.pivot import load_pivot
from pti_pipeline.preview import PREVIEW, WatchSettings, read_watch
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import BaseSettings, InvertSettings, SampleSettings
from pti_pipeline.studies.packs import Pack
from pti_pipeline.tracking.find import fetch, find_runs

PROMPTS = ("{} in the snow", "a cat beside {}")


@pytest.fixture
def train(store, least_folder, pictures):
    """Train a step with more options; the run."""

    def run(step, *options):
        where = [f"--base={least_folder}", "--device=cpu", "--steps=1", "--probes=0"]
        if step == "invert":
            where += [f"--images={pictures}", "--initializer=cat", "--token=<c>"]
        done = CliRunner().invoke(main, [step, *where, *options])
        assert done.exit_code == 0, done.output
        return find_runs(step=step)[-1]

    return run


def last_grid(run, folder):
    (path,) = fetch(run, "images", folder).glob("*.png")
    return np.asarray(Image.open(path))


def test_a_grid_has_the_prompts_and_seeds_asked_for(train, store, least_folder):
    (store / "prompts.txt").write_text("\n".join(PROMPTS))
    asked = ("--preview=prompts.txt", "--preview-seeds=7,3,5")
    run = train("invert", *asked)
    vectors = load_pivot(fetch(run, "pivot/learned_embeds.safetensors", store)).embedding[None]
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    base, who = load(str(least_folder), "cpu"), Characters("<c>", vectors)
    images = draw(base, who, prompts, [7, 3, 5] * 2, SampleSettings())
    expected = grid(to_uint8(images)[0], 3)
    assert np.array_equal(last_grid(run, store / "grids"), expected)
    assert fetch(run, "preview.txt", store).read_text().splitlines() == [*PROMPTS]
    tuned = train("finetune", f"--pivot={run.id}", *asked)
    assert last_grid(tuned, store / "tuned").shape == expected.shape


def test_prompts_are_of_the_fingerprint_and_their_file_is_not(train, store):
    for name, text in (("a.txt", "{} here"), ("b.txt", "{} here\n"), ("c.txt", "{} there")):
        (store / name).write_text(text)

    def settings(*asked):
        return train("invert", "--resume=no", *asked).tags["pti.settings"]

    a = settings("--preview=a.txt")
    assert a == settings("--preview=b.txt")
    others = settings("--preview=c.txt"), settings("--preview=a.txt", "--preview-seeds=1")
    assert len({a, *others, settings()}) == 4


def test_a_pack_takes_the_prompts_along(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    watch = read_watch(4, 3, str(tmp_path / "p.txt"), "7,3")
    assert watch == WatchSettings(4, 3, PROMPTS, (7, 3)) and watch.grid == 4
    pack = Pack("invert", BaseSettings(), {"images": "x"}, (InvertSettings(0.1),), watch)
    assert Pack.from_json(pack.to_json()) == pack
    assert read_watch(4, 3, "", "0,1,2,3") == WatchSettings(4, 3) == WatchSettings(4, 3, PREVIEW)


def test_more_than_a_grid_holds_is_refused():
    with pytest.raises(UsageError, match=r"E202.*preview_seeds has 17 values.*use 1 to 16"):
        read_watch(4, 3, "", ",".join(map(str, range(17))))
