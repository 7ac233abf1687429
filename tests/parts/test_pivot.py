import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.pivot import Pivot, attached, load_pivot, placeholder_tokens, save_pivot


def test_attaching_leaves_the_table_and_every_other_token_alone(base):
    table = base.text_encoders[0].get_input_embeddings()
    before = table.weight.clone()
    ids = base.tokenize(["a photo of cat"], ["<c>"])
    plain = base.condition(ids)
    with attached(base.text_encoders, torch.randn(1, 1, 16, generator=torch.Generator())):
        assert torch.equal(base.condition(ids), plain)
    assert base.text_encoders[0].get_input_embeddings() is table
    assert torch.equal(table.weight, before)


def test_an_error_inside_also_detaches(base):
    table = base.text_encoders[0].get_input_embeddings()
    with pytest.raises(RuntimeError), attached(base.text_encoders, torch.zeros(1, 1, 16)):
        raise RuntimeError
    assert base.text_encoders[0].get_input_embeddings() is table


def test_the_initializers_own_row_reads_as_the_initializer(base):
    row = base.initializer_row("cat")
    ids = base.tokenize(["a photo of <c>"], ["<c>"])
    with attached(base.text_encoders, row[None, None]):
        found = base.condition(ids)
    assert torch.equal(found, base.condition(base.tokenize(["a photo of cat"], ["<c>"])))


def test_each_experiment_reads_its_own_vectors(base):
    vectors = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(1))
    ids = base.tokenize(["<c> on the beach", "a <c>"], placeholder_tokens("<c>", 2))
    with attached(base.text_encoders, vectors):
        packed = base.condition(ids.repeat(3, 1))
    for k in range(3):
        with attached(base.text_encoders, vectors[k : k + 1]):
            torch.testing.assert_close(base.condition(ids), packed[2 * k : 2 * k + 2])


@pytest.mark.parametrize("vectors", [1, 2])
def test_diffusers_reads_the_file(base, tiny_folder, tmp_path, vectors):
    embedding = torch.randn(vectors, 16, generator=torch.Generator().manual_seed(2))
    pivot = Pivot("<c>", "cat", embedding, base.initializer_row("cat").expand(vectors, -1))
    save_pivot(pivot, tmp_path / "learned_embeds.safetensors")
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipe.load_textual_inversion(str(tmp_path / "learned_embeds.safetensors"))
    theirs = pipe.encode_prompt("a <c> on the beach", "cpu", 1, False)[0]
    with attached(base.text_encoders, embedding[None]):
        ids = base.tokenize(["a <c> on the beach"], placeholder_tokens("<c>", vectors))
        torch.testing.assert_close(base.condition(ids), theirs)


def test_saved_and_loaded_pivots_are_bit_identical(base, tmp_path):
    row = base.initializer_row("cat")
    pivot = Pivot("<c>", "cat", torch.randn(2, 16), row.expand(2, -1))
    save_pivot(pivot, tmp_path / "p.safetensors")
    found = load_pivot(tmp_path / "p.safetensors")
    assert torch.equal(found.embedding, pivot.embedding) and torch.equal(found.start, pivot.start)
    assert (found.token, found.initializer) == ("<c>", "cat")


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"\x80\x04no safetensors")
    with pytest.raises(ModelError, match="E410"):
        load_pivot(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ModelError, match="E402"):
        load_pivot(path)
    save_pivot(Pivot("<c>", "cat", torch.full((1, 4), torch.nan), torch.zeros(1, 4)), path)
    with pytest.raises(ModelError, match="E403"):
        load_pivot(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="E402"):
        load_pivot(path)


@pytest.mark.parametrize("token", ["cat", "Cat", "", "two words", "photo"])
def test_words_can_not_be_placeholders(base, token):
    with pytest.raises(UsageError) as caught:
        base.check_token(token)
    assert caught.value.code in ("E203", "E204")


def test_the_initializer_must_be_one_token(base):
    with pytest.raises(UsageError, match=r"E205.*tokens"):
        base.initializer_row("kitten")
    with pytest.raises(UsageError, match="E205"):
        base.initializer_row("")


@pytest.mark.parametrize(
    ("tensor", "facts"),
    [
        (torch.ones(1, 4), {"initializer": ""}),
        (torch.ones(1, 4), {"start": ""}),
        (torch.ones(1, 4), {"start": "[0, 0, 0]"}),
        (torch.ones(1, 4), {"start": "{}"}),
        (torch.ones(1, 4), {"token": "<d>"}),
        (torch.ones(4), {}),
        (torch.ones(1, 4, dtype=torch.int64), {}),
        (torch.ones(0, 4), {}),
    ],
)
def test_files_that_hold_no_whole_pivot(tmp_path, tensor, facts):
    usual = {"token": "<c>", "initializer": "cat", "start": "[0, 0, 0, 0]"}
    header = {name: value for name, value in {**usual, **facts}.items() if value}
    save_file({"<c>": tensor}, tmp_path / "a.safetensors", header)
    with pytest.raises(ModelError, match="E402"):
        load_pivot(tmp_path / "a.safetensors")
