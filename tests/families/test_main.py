"""The whole study on tiny models of the families, with what the LoRA may adapt, to an export."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from tiny_families import build_families

from pti_pipeline.tracking.find import find_runs

pytestmark = pytest.mark.slow

STUDY = (
    "main --token=<c> --initializer=cat --steps=6 --samples=16 --edit-seeds=1 --sample-every=3 "
    "--probes=2 --inversion-lrs=0.001,0.01 --tuning-lrs=0.0003,0.003 --regularized-lrs=0.001,0.01 "
    "--seeds=0"
)

WHOLE = (
    "--rank=2 --alpha=4 --targets=attention+feed-forward --rslora=yes --dora=yes "
    "--text-encoder=yes --buckets=yes"
)
BOTH = ["clip_g", "clip_l"]
EMBEDDING = {"sd-noise": ["emb_params"], "sd-velocity": ["emb_params"]}
LEAKS = {"leak/class_auc", "leak/background_class_auc"}
FROM_PIVOT = {"leak/pivot_auc", "leak/background_pivot_auc"}


@pytest.mark.parametrize(
    ("family", "adapted"),
    [
        ("sd-noise", ""),
        ("sd-velocity", WHOLE),
        ("sdxl", ""),
        ("sdxl", WHOLE),
        ("sd3", ""),
        ("sd3", WHOLE),
        ("sd3-without-t5", ""),
    ],
)
def test_a_study_ends_with_a_character_that_is_drawn_and_exported(
    family, adapted, pictures, clip_folder, tmp_path, monkeypatch
):
    folder = build_families(tmp_path)[family]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)

    def pti(*words):
        command = [sys.executable, "-m", "pti_pipeline", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "prompts.txt").write_text("{} in the snow\n{} on the beach\n")
    words = [
        *STUDY.split(),
        *adapted.split(),
        f"--base={folder}",
        f"--images={pictures}",
        "--preview=prompts.txt",
    ]
    unread = family.startswith("sd3")  # without a CLIP model nothing reads edits
    told = pti(*words, *([] if unread else [f"--clip-model={clip_folder}"]))
    known = "champion|candidate" if adapted else "champion"  # what such rates spoil is none
    model = re.search(rf"models:/c@({known})", told)[0]
    report = Path(told.split("Report:   ")[1].splitlines()[0]).read_text("utf-8")
    assert "&lt;c&gt; in the snow" in report and "on the left" not in report
    assert ("Editability will not be measured" in told) == unread
    trained = find_runs(step="invert") + find_runs(step="finetune")
    drawn = [run for run in trained if "pti.unsampled" not in run.tags]
    assert {"editability/clip_t" in run.metrics for run in drawn} == {not unread}
    if not adapted:  # else a CLIP of random weights may tell no edit from another
        assert {"editability/relative" in run.metrics for run in drawn} == {family == "sdxl"}
        (row,) = [line for line in told.splitlines() if line.startswith("| editability ")]
        assert ("-" in row.replace(" ", "").split("|")) == (family != "sdxl")
    for run in drawn:
        leaks = {n: v for n, v in run.metrics.items() if n.startswith("leak/") and "_auc" in n}
        tuning = run.tags["pti.step"] == "finetune"
        assert LEAKS | (FROM_PIVOT if tuning else set()) <= leaks.keys()
        assert all(0 <= value <= 1 for value in leaks.values())
    assert {
        run.status for step in ("invert", "finetune", "main") for run in find_runs(step=step)
    } == {"FINISHED"}
    tuned = find_runs(step="finetune")
    assert {run.params["dora"] for run in tuned} == {"yes" if adapted else "no"}
    pti("generate", f"--model={model}", "--prompt=a photo of <c>", "--output=drawn")
    picture = tmp_path / "drawn" / "seed-0.png"
    assert Image.open(picture).size == (16, 16)
    (registered,) = find_runs(step="register")
    pti(
        "generate", f"--model={registered.params['run']}", "--prompt=a photo of <c>", "--output=own"
    )
    assert (tmp_path / "own" / picture.name).read_bytes() == picture.read_bytes()
    pti("export", f"--model={model}", "--form=diffusers,embedding,merged")
    with safe_open(tmp_path / "exported" / "c.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == EMBEDDING.get(family, BOTH)
