"""Characters' files, and several of them on the embedded model."""

import json

import numpy as np
import pytest
import torch
from registered import make_pivot, write_files

from pti_pipeline.bundle import attached, draw_bundles, load_bundles, seal
from pti_pipeline.characters import class_word, draw, encode
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.families import load
from pti_pipeline.settings import SampleSettings

HOW = SampleSettings(4, 3.0)


@pytest.fixture(scope="module")
def world():
    return load("world", "cpu")


def write_bundle(base, folder, token, **more):
    folder.mkdir()
    write_files(base, folder, token, **more)
    facts = {"base": base.name, "base_fingerprint": base.fingerprint}
    seal(folder, {**facts, "token": token, "run": "r"})
    return folder


@pytest.fixture(scope="module")
def folders(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return [
        write_bundle(world, folder / "a", "<mei>", seed=1, vectors=2, size=0.3),
        write_bundle(world, folder / "b", "<kit>", seed=2, rank=4, size=0.3),
        write_bundle(world, folder / "c", "<pivot>", seed=3, tuned=False),
    ]


@pytest.fixture
def copied(world, tmp_path):
    return write_bundle(world, tmp_path / "own", "<own>")


def test_the_base_is_what_it_was_bit_for_bit_after_two_characters(folders):
    base, bundles = load_bundles(folders)
    modules = dict(base.denoiser.named_modules())

    def plain():
        return draw(base, class_word(), ["a rabbit on the beach"], [3], HOW)

    before = plain()
    prompt = ["a photo of <mei> beside <kit> in the snow"]
    together = draw_bundles(base, bundles[:2], prompt, [3], HOW, [1.0, 0.7])
    after = plain()
    assert torch.equal(before, after)
    assert dict(base.denoiser.named_modules()) == modules
    others = draw_bundles(base, bundles[:2], prompt, [3], HOW, [1.0, 0.2])
    assert not np.array_equal(together, others)
    again = draw_bundles(base, bundles[:2], prompt, [3], HOW, [1.0, 0.7])
    assert np.array_equal(together, again)


def test_each_token_of_a_prompt_reads_its_own_vectors(folders):
    base, bundles = load_bundles(folders)
    with attached(base, bundles) as who:
        assert who.name == "<mei> and <kit> and <pivot>"
        states = encode(base, who, ["a photo of <kit>", "{}"])[0]
    with attached(base, bundles[1:2]) as who:
        alone = encode(base, who, ["a photo of {}", "<kit>"])[0]
    torch.testing.assert_close(states[0], alone[0])
    written = "<mei> and <kit> and <pivot>"
    with attached(base, bundles) as who:
        assert torch.equal(encode(base, who, [written])[0, 0], states[1])


def test_one_character_alone_is_drawn_as_without_the_others_weight(folders):
    base, (one, other, _) = load_bundles(folders)
    alone = draw_bundles(base, [one], ["{}"], [5], HOW)
    beside = draw_bundles(base, [one, other], ["<mei>"], [5], HOW, [1.0, 0.0])
    assert np.abs(alone.astype(int) - beside).max() <= 1


def test_tokens_that_can_not_be_told_apart(world, tmp_path):
    names = ("<mei>", "<mei>", "mei", "<mei>_1")
    folders = [write_bundle(world, tmp_path / str(i), n) for i, n in enumerate(names)]
    base, bundles = load_bundles(folders)
    for other in bundles[1:]:
        with pytest.raises(UsageError, match="E254"), attached(base, [bundles[0], other]):
            pass


def test_characters_of_another_base(folders, world, tmp_path, tiny_folder):
    tiny = load(str(tiny_folder), "cpu")
    folder = write_bundle(tiny, tmp_path / "tiny", "<tiny>")
    with pytest.raises(ModelError, match=rf"E404.*expected {tiny.fingerprint[:12]}, found"):
        load_bundles([folders[0], folder])
    with pytest.raises(ModelError, match="E404"):
        load_bundles(folders[:1], str(tiny_folder))
    _, bundles = load_bundles([folder])
    with pytest.raises(ModelError, match="E404"), attached(world, bundles):
        pass


@pytest.mark.parametrize("name", ["learned_embeds.safetensors", "pytorch_lora_weights.safetensors"])
def test_a_changed_file_is_refused_with_both_hashes(copied, name):
    data = bytearray((copied / name).read_bytes())
    data[-1] ^= 1
    (copied / name).write_bytes(bytes(data))
    with pytest.raises(ModelError, match=rf"E425.*{name}.*expected [0-9a-f]{{12}}, found [0-9a-f]"):
        load_bundles([copied])


def test_a_missing_or_an_added_file_is_refused(copied):
    (copied / "more.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"E425.*more.bin.*expected no file"):
        load_bundles([copied])
    (copied / "more.bin").unlink()
    (copied / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"E425.*found no file"):
        load_bundles([copied])


@pytest.mark.parametrize("text", ["", "[]", '{"base": "world"}', '{"files": 3}', "\0"])
def test_a_bundle_that_does_not_say_what_it_is(copied, text):
    (copied / "bundle.json").write_text(text)
    with pytest.raises(ModelError, match="E426"):
        load_bundles([copied])


def test_weights_too_large_to_draw_with_are_told(world, tmp_path):
    folder = write_bundle(world, tmp_path / "huge", "<huge>", size=1e30)
    base, bundles = load_bundles([folder])
    with pytest.raises(ModelError, match="E427"):
        draw_bundles(base, bundles, ["{}"], [0], HOW)


def test_what_bundle_json_says(copied):
    facts = json.loads((copied / "bundle.json").read_text())
    assert set(facts["files"]) == {p.name for p in copied.iterdir()} - {"bundle.json"}
    assert all(len(value) == 64 for value in facts["files"].values())


def test_a_pivot_near_its_initializer_is_a_fair_stand_in(world):
    pivot = make_pivot(world, "<x>")
    assert pivot.embedding.isfinite().all() and not torch.equal(pivot.embedding, pivot.start)
