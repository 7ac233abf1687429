"""Files made elsewhere are measured as runs are: ours, given as files, get their runs' numbers."""

import pytest
from click.testing import CliRunner
from documented import outside, untold
from mlflow import MlflowClient
from stores import store_in

from pti_pipeline import sharing
from pti_pipeline.cli import main
from pti_pipeline.tracking.find import fetch, find_runs, get_run

GROUPS = ("reconstruction/", "editability/", "leak/", "diversity/", "overpowering/")


def pti(*words):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.output.split("run ")[1].split(".")[0]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A store for the whole file, and one process for the work."""
    folder = tmp_path_factory.mktemp("store")
    with store_in(folder) as patch:
        patch.setattr(sharing.machine, "cores", lambda: 1)
        yield folder


@pytest.fixture(scope="module")
def made(shop, least_folder, pictures, clip_folder, dino_folder):
    """An inversion and a tuning of two steps, evaluated, and the files that they left."""
    base = f"--base={least_folder}"
    pivot = pti(
        *("invert", f"--images={pictures}", "--token=<x>", "--initializer=cat", base),
        *("--steps=2", "--lr=0.01", "--vectors=2", "--sample-every=0", "--device=cpu"),
    )
    tuned = pti(
        *("finetune", f"--pivot={pivot}", "--steps=2", "--lr=0.01", "--rank=2", "--alpha=6"),
        *("--sample-every=0", "--device=cpu", base),
    )
    drawn = (
        *("--samples=8", "--edit-seeds=1", "--sampling-steps=2", "--device=cpu", base),
        *(f"--clip-model={clip_folder}", f"--dino-model={dino_folder}"),
    )
    for run in (pivot, tuned):
        pti("evaluate", f"--run={run}", *drawn)
    whom = (f"--images={pictures}", "--token=<x>", "--initializer=cat")
    run = get_run(tuned)
    lora = fetch(run, "lora/pytorch_lora_weights.safetensors", shop / "files")
    embedding = fetch(run, "pivot/learned_embeds.safetensors", shop / "files")
    return get_run(pivot), run, lora, embedding, (*drawn, *whom)


def same(found, run):
    for name, value in run.metrics.items():
        if name.startswith(GROUPS) or name in ("distance/delta_norm", "distance/relative"):
            assert found.metrics[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


@pytest.mark.slow
def test_the_reference_tells_all_that_is_logged_of_another_base_and_its_ranges(made):
    pivot, tuned, *_ = made
    keys = {*pivot.metrics, *tuned.metrics}
    assert {"reconstruction/dino_relative", "editability/clip_t_margin"} <= keys
    assert untold(keys) == set()
    assert [outside(run.metrics, world=False) for run in (pivot, tuned)] == [{}, {}]


@pytest.mark.slow
def test_our_own_files_get_the_numbers_of_their_runs(made):
    pivot, tuned, lora, embedding, rest = made
    found = get_run(pti("evaluate", f"--lora={lora}", f"--embedding={embedding}", *rest))
    assert found.tags["pti.step"] == "evaluate" and found.status == "FINISHED"
    assert found.tags["pti.foreign"] == f"{lora.name}, {embedding.name}"
    assert {"leak/pivot_auc", "reconstruction/clip_i", "overpowering/share"} <= set(found.metrics)
    assert found.tags["pti.reader.editability"] == "CLIP tiny-clip"
    assert found.tags["pti.reader.editability"] == tuned.tags["pti.reader.editability"]
    same(found, tuned)
    moved = pivot.metrics["distance/delta_norm"]
    assert found.metrics["distance/embedding_norm"] == pytest.approx(moved, rel=1e-5)
    grids = [f.path for f in MlflowClient().list_artifacts(found.id, "images")]
    assert any(path.endswith(".png") for path in grids)

    alone = get_run(pti("evaluate", f"--embedding={embedding}", *rest))
    assert "leak/pivot_auc" not in alone.metrics
    same(alone, pivot)
    assert alone.metrics["distance/angle"] == pytest.approx(
        pivot.metrics["distance/angle"], rel=1e-4
    )


@pytest.mark.slow
def test_a_bundle_gets_the_numbers_of_its_run(made, shop):
    """One file holds both."""
    _, tuned, *_, rest = made
    words = ["export", f"--model={tuned.id}", "--form=bundle", f"--output={shop}/out"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = get_run(pti("evaluate", f"--lora={shop}/out/x-bundle.safetensors", *rest))
    assert found.tags["pti.foreign"] == "x-bundle.safetensors"
    assert "leak/pivot_auc" in found.metrics
    same(found, tuned)


@pytest.mark.slow
def test_a_lora_alone_answers_to_plain_words(made):
    *_, lora, _, rest = made
    found = get_run(pti("evaluate", f"--lora={lora}", *rest, "--token=a cat"))
    assert found.tags["pti.token"] == "a cat" and found.tags["pti.foreign"] == lora.name
    assert "distance/embedding_norm" not in found.metrics
    assert found.metrics["distance/delta_norm"] > 0
    assert 0 < found.metrics["overpowering/share"] < 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "E231"),
        (("--run=1", "--lora=x.safetensors"), "E231"),
        (("--lora=x.safetensors", "--images=x", "--token=x"), "E231"),
        (("--lora=x.bin", "--images={}", "--token=x", "--initializer=cat"), "E410"),
        (("--embedding=x.pt", "--images={}", "--token=<x>", "--initializer=cat"), "E410"),
        (("--lora=none.safetensors", "--images={}", "--token=x", "--initializer=cat"), "E411"),
        (
            ("--embedding=none.safetensors", "--images={}", "--token=cat", "--initializer=cat"),
            "E204",
        ),
    ],
)
def test_what_can_not_be_measured_is_told_in_one_line(store, least_folder, pictures, words, code):
    filled = [word.replace("{}", str(pictures)) for word in words]
    done = CliRunner().invoke(main, ["evaluate", *filled, f"--base={least_folder}"])
    assert done.exit_code in (2, 4)
    last = done.output.strip().splitlines()[-1]
    assert last.startswith(f"error[{code}]") and "Hint:" in last
    assert find_runs() == []  # refused before any run was opened
