"""Files of weights: what is a pickle is told from what is only no safetensors file."""

import pickle

import pytest
from safetensors.torch import save
from torch import zeros

from faults.payloads import FORMS, plant
from pti_pipeline.errors import ModelError
from pti_pipeline.weights import LONG, refuse_pickle


@pytest.mark.parametrize("form", FORMS)
def test_pickles_under_another_name_are_refused_unread(tmp_path, form):
    path = plant(tmp_path / "x.safetensors", form, tmp_path / "sentinel")
    with pytest.raises(ModelError, match=r"E410.*'x.safetensors' may hold a pickle"):
        refuse_pickle(path)
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize("value", [None, [], {"a": (1, 2.5, True)}, ["é", b"x", 10**30]])
def test_the_oldest_pickles_are_text(tmp_path, value):
    (tmp_path / "x.safetensors").write_bytes(pickle.dumps(value, 0))
    with pytest.raises(ModelError, match="E410"):
        refuse_pickle(tmp_path / "x.safetensors")


def test_a_long_pickle_is_told_by_its_end(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(pickle.dumps("x" * LONG, 0))
    with pytest.raises(ModelError, match="E410"):
        refuse_pickle(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"No weights, but a sentence.",
        b"table.",  # opcodes, with nothing to work on
        b"(00.",
        b"Ib.",
        b"\xff\xfe.",
        save({"x": zeros(2)}),
        save({"x": zeros(2)}) + b".",
        pickle.dumps([1, 2], 0)[:-1],
    ],
)
def test_what_merely_ends_in_a_dot_is_left_to_who_reads_it(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    refuse_pickle(tmp_path / "x.safetensors")
