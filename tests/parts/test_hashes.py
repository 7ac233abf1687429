"""Hashes of files, and what is told of those that are not what was written."""

import pytest

from pti_pipeline.errors import ModelError
from pti_pipeline.hashes import check_hashes, file_hashes

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of ``abc``: FIPS 180-4, appendix B.1 of its first edition."""
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_every_file_of_a_folder_has_the_published_hash_under_its_path(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"")
    assert list(file_hashes(tmp_path).items()) == [("a", NOTHING), ("b/c/d", ABC)]


@pytest.mark.parametrize(
    ("expected", "found", "told"),
    [
        ({"a": ABC}, {"a": NOTHING}, "a .*expected ba7816bf8f01, found e3b0c44298fc"),
        ({"a": ABC}, {}, "a .*expected ba7816bf8f01, found no file"),
        ({}, {"a": ABC}, "a .*expected no file, found ba7816bf8f01"),
        ({"b": ABC, "a": ABC}, {"b": NOTHING}, "a .*found no file"),
        ({"a": None}, {"a": ABC}, "a .*expected None, found ba7816bf8f01"),
    ],
)
def test_the_first_file_that_differs_is_told(expected, found, told):
    line = rf"^error\[E425\]: bundle: {told}\)\. Hint: register or train it again"
    with pytest.raises(ModelError, match=line):
        check_hashes("bundle", expected, found)
    check_hashes("bundle", expected={"a": ABC}, found={"a": ABC})
