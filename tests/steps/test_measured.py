"""Measurements of a study, kept and found again."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pti_pipeline.meter import Measured
from pti_pipeline.steps.measured import keep, kept, load_measured, save_measured
from pti_pipeline.tracking.runs import open_run

ABOUT = {"pti.base_fingerprint": "b"}


@pytest.fixture
def measured():
    plain = {"x": torch.randn(4, 2), "scene": torch.tensor([1, 0, 2, 2])}
    edits = {"obeyed": torch.tensor([True, False])}
    bank = {"reconstruction/ssim": 0.1 + 0.2, "overpowering/share": float("nan")}
    return Measured(plain, edits, bank, np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def same(one, other):
    assert one.plain.keys() == other.plain.keys() and one.edits.keys() == other.edits.keys()
    for part in ("plain", "edits"):
        for name, value in getattr(one, part).items():
            assert torch.equal(value, getattr(other, part)[name])
            assert value.dtype == getattr(other, part)[name].dtype
    np.testing.assert_equal(one.bank, other.bank)
    assert np.array_equal(one.grid, other.grid)


def test_a_file_gives_back_what_was_measured(measured, tmp_path):
    save_measured(measured, tmp_path / "a.safetensors")
    same(load_measured(tmp_path / "a.safetensors"), measured)


def test_a_file_that_was_cut_short_is_none(measured, tmp_path):
    save_measured(measured, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[: len(whole) // 2])
    assert load_measured(tmp_path / "a.safetensors") is None
    save_file({"plain/x": torch.ones(2)}, tmp_path / "a.safetensors")
    assert load_measured(tmp_path / "a.safetensors") is None


def test_only_the_same_study_and_settings_find_it_again(measured, store):
    tags = {"pti.step": "evaluate", "pti.study": "s", **ABOUT}
    with open_run("evaluate", {"samples": 16, "run": "r"}, tags) as run:
        keep(run, "class", measured)
    with open_run("evaluate", {"samples": 16}, tags):
        pass  # one that ended early
    found = kept("s", {"samples": 16}, ABOUT)
    assert found.keys() == {"class"}
    same(found["class"], measured)
    assert kept("s", {"samples": 32}, ABOUT) == {}
    assert kept("s", {"samples": 16}, {"pti.base_fingerprint": "other"}) == {}
    assert kept("other", {"samples": 16}, ABOUT) == {}
    assert kept("", {"samples": 16}, ABOUT) == {}
