"""Twins: what stays and what is another, in renders and photos."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from pti_pipeline.data import load_subject
from pti_pipeline.steps.world_pictures import save_pictures
from pti_pipeline.twins import SHIFT, make_twins, photo_twins
from pti_pipeline.world.reader import load_reader
from pti_pipeline.world.record import read_factors
from pti_pipeline.world.render import render
from pti_pipeline.world.subjects import CHARACTERS, TWINS, views


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("umber")
    factors = views(CHARACTERS[3], 12)
    save_pictures(render(factors, 96), factors, folder)
    return folder


def test_factors_are_kept_in_the_order_of_the_pictures(folder):
    subject = load_subject(folder, 48)
    assert subject.names[1] == "10.png"  # as text sorts
    factors = read_factors(folder, subject.names)
    again = np.stack([np.asarray(Image.fromarray(p)) for p in render(factors, 96)])
    shown = np.stack([np.asarray(Image.open(folder / n).convert("RGB")) for n in subject.names])
    assert np.array_equal(again, shown)


def test_twins_of_renders_keep_the_character_and_change_what_they_are_named_after(folder):
    subject = load_subject(folder, 48)
    twins = make_twins(subject, folder).pictures
    assert set(twins) == {"all", *TWINS}
    reader = load_reader()
    before, after = reader.read(subject.images), {k: reader.read(v) for k, v in twins.items()}
    for kind, read in after.items():
        for name in ("species", "color", "hat"):
            assert (read[name] == before[name]).float().mean() > 0.8, (kind, name)
        moved = (read["x"] - before["x"]).abs().mean() > 0.05
        other_scene = (read["scene"] != before["scene"]).float().mean() > 0.5
        turned = (read["facing"] != before["facing"]).float().mean() > 0.2
        changes = {"position": moved, "scene": other_scene, "pose": turned}
        wanted = set(TWINS) if kind == "all" else {kind}
        assert {k for k, v in changes.items() if v} == wanted


def test_masks_of_renders_are_where_the_characters_are(folder):
    subject = load_subject(folder, 48)
    twins = make_twins(subject, folder)
    read = load_reader().read(twins.pictures["all"])
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    weights = twins.masks[:, 0] / twins.masks[:, 0].sum((1, 2), keepdim=True)
    across, down = ((weights * axis).sum((1, 2)) / 48 for axis in (columns, rows))
    assert float((across - read["x"]).abs().max()) < 0.06
    assert float((down - read["y"]).abs().max()) < 0.12


def test_masks_of_photos_move_with_them(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "masked")
    for path in sorted((tmp_path / "masked").glob("*.png")):
        mask = np.zeros((20, 24), np.uint8)
        mask[5:15, 6:18] = 255
        Image.fromarray(mask).save(path.with_name(path.stem + "-mask.png"))
    subject = load_subject(tmp_path / "masked", 16)
    masks = make_twins(subject, tmp_path / "masked").masks
    assert masks.shape == (3, 1, 16, 16) and 0 < float(masks.mean()) < 1
    assert make_twins(load_subject(pictures, 16), pictures).masks is None


def test_a_folder_without_a_record_of_all_its_pictures_is_one_of_photos(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "more")
    Image.new("RGB", (96, 96), "white").save(tmp_path / "more" / "extra.png")
    subject = load_subject(tmp_path / "more", 48)
    assert read_factors(tmp_path / "more", subject.names) is None
    assert set(make_twins(subject, tmp_path / "more").pictures) == {"all", "position", "pose"}


def test_twins_of_photos_are_moved_and_mirrored():
    images = torch.full((4, 3, 40, 40), -1.0)
    images[:, :, 18:22, 18:22] = 1.0
    twins = photo_twins(images)
    assert torch.equal(twins["pose"], images.flip(-1))
    for picture in twins["position"]:
        rows, columns = (picture[0] > 0).nonzero().float().mean(0)
        reach = float(((rows - 19.5) ** 2 + (columns - 19.5) ** 2) ** 0.5)
        assert 40 * SHIFT / 2 - 2 <= reach <= 40 * SHIFT + 2
    assert twins["all"].shape == images.shape and twins["all"].isfinite().all()
    again = photo_twins(images)
    assert all(torch.equal(twins[k], again[k]) for k in twins)


def test_what_is_unmoved_is_drawn_pixel_by_pixel_as_before(folder):
    subject = load_subject(folder, 48)
    twins = make_twins(subject, folder).pictures
    edges = {k: (v - subject.images)[:, :, :, [0, -1]] for k, v in twins.items()}
    same = {kind: float((gap == 0).float().mean()) for kind, gap in edges.items()}
    assert min(same["position"], same["pose"]) > 0.85  # some details are painted over characters
    assert max(same["scene"], same["all"]) < 0.3


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [],
        lambda c: {**c, "species": [99] * len(c["file"])},
        lambda c: {**c, "species": [0.5] * len(c["file"])},
        lambda c: {**c, "x": c["x"][1:]},
        lambda c: {**c, "y": [float("nan")] * len(c["file"])},
        lambda c: {k: v for k, v in c.items() if k != "scene"},
    ],
)
def test_factors_that_are_none_are_told_and_passed_over(folder, tmp_path, change):
    columns = json.loads((folder / "factors.json").read_text())
    names = columns["file"]
    (tmp_path / "factors.json").write_text(json.dumps(columns))
    assert len(read_factors(tmp_path, names)) == len(names)
    (tmp_path / "factors.json").write_text(json.dumps(change(columns)))
    with pytest.warns(UserWarning, match="passed over"):
        assert read_factors(tmp_path, names) is None
