import json
import sqlite3
from dataclasses import replace

import numpy as np
from mlflow import MlflowClient
from PIL import Image

from pti_pipeline.data import load_subject
from pti_pipeline.tracking.dataset import PICTURES, log_dataset, log_pictures, sheet
from pti_pipeline.tracking.find import fetch, get_run
from pti_pipeline.tracking.runs import open_run


def photos(folder):
    """Two pictures whose files say where they were taken and by what."""
    folder.mkdir(parents=True)
    left = np.zeros((40, 60, 3), np.uint8)
    left[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    exif[0x010F] = "secret camera"
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(left).save(folder / name, exif=exif, quality=95, comment=b"secret place")
    return folder


def test_runs_say_what_they_learned_from_without_the_folders_place(experiment, tmp_path):
    folder = photos(tmp_path / "private" / "mei")
    (folder / "a.txt").write_text("a photo")
    subject = load_subject(folder, 32)
    with (
        open_run("r", {}, {"pti.step": "x"}) as one,
        open_run("r", {}, {"pti.step": "x"}) as other,
    ):
        log_dataset([one, other], subject, folder)
    for run in (one, other):
        (found,) = MlflowClient().get_run(run.id).inputs.dataset_inputs
        assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}
        facts = found.dataset.to_dictionary()
        assert facts["name"] == "mei" and subject.fingerprint.startswith(facts["digest"])
        assert json.loads(facts["profile"]) == {
            "pictures": 2,
            "captions": 1,
            "resolution": "32 x 32",
            "sha256": subject.fingerprint,
        }
        assert "private" not in json.dumps(facts)


def test_the_pictures_are_logged_as_pixels_alone(experiment, tmp_path):
    subject = load_subject(photos(tmp_path / "mei"), 32)
    with open_run("r", {}, {"pti.step": "x"}) as run:
        log_pictures(run, [subject])
    path = fetch(get_run(run.id), PICTURES, tmp_path / "fetched")
    assert b"secret" in (tmp_path / "mei" / "a.jpg").read_bytes()
    assert b"secret" not in path.read_bytes()
    with Image.open(path) as picture:
        assert picture.size == (64, 32)
        assert not picture.getexif() and not picture.info
        pixels = np.asarray(picture.convert("L")).astype(int)
    assert pixels[:, :8].max() < 20 and pixels[:, 24:32].min() > 235  # turned as EXIF asked


def test_large_pictures_are_made_small(experiment, tmp_path):
    subject = load_subject(photos(tmp_path / "mei"), 512)
    assert sheet([subject]).shape == (128, 256, 3)


def test_pictures_of_several_shapes_keep_them(tmp_path):
    subject = load_subject(photos(tmp_path / "mei"), 32)
    high, wide = subject.images[:1, :, :, 4:28], subject.images[1:, :, 8:24]
    found = sheet([replace(subject, images=images) for images in (high, wide)])
    assert found.shape == (16, 12 + 32, 3)
    assert np.array_equal(found[:, 12:], (wide[0].permute(1, 2, 0) * 127.5 + 127.5).round().byte())


def test_a_store_that_refuses_the_dataset_fails_no_run(store, caplog):
    subject = load_subject(photos(store / "mei"), 32)
    with open_run("r", {}, {"pti.step": "x"}) as run:
        with sqlite3.connect(store / "mlflow.db") as database:
            database.execute(
                "CREATE TRIGGER refused BEFORE INSERT ON inputs "
                "BEGIN SELECT RAISE(ABORT, 'read only'); END"
            )
        log_dataset([run], subject, store / "mei")
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("pti_pipeline")]
    assert "no dataset" in line and "\n" not in line
    assert get_run(run.id).status == "FINISHED"
