"""Captions beside pictures and in their table, as they are read without opening a picture."""

import re

import pytest

from pti_pipeline import captions
from pti_pipeline.captions import LONGEST, TABLE, read_captions, read_prompts
from pti_pipeline.errors import DataError

ROW = '{"file_name": "%s", "text": "%s"}\n'


def read(folder, *names):
    return read_captions(folder, [folder / name for name in names])


def refusal(folder, *names):
    with pytest.raises(DataError) as caught:
        read(folder, *names)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xfe", "no UTF-8 text"),
        (b"a\x00b", "control characters"),
        (b"\x1b[2J", "control characters"),
        (b"x" * 1001, "1001 letters"),
        (b" " * 10_000_001, "above 10 MB"),
    ],
)
def test_those_that_can_not_be_used_are_told_at_once(tmp_path, data, why):
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "b.txt").write_bytes(data)
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbffine,\r\n on two lines\n")
    told = f"error[E320]: can't use 2 captions: a.txt ({why}); b.txt ({why}). Hint: write UTF-8"
    assert refusal(tmp_path, "a.png", "b.png", "c.png").startswith(told)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("")
    found = (None, None, "fine, on two lines")
    assert read(tmp_path, "a.png", "b.png", "c.png") == (found, ())


def test_as_long_as_may_be(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x" * LONGEST)
    monkeypatch.setattr(captions, "LARGEST", LONGEST)
    assert read(tmp_path, "a.png") == (("x" * LONGEST,), ())


@pytest.mark.parametrize("letter", ["\\ud800", "\\udfff", "\\u0007"])
def test_letters_that_are_none_are_told_with_their_picture(tmp_path, letter):
    (tmp_path / TABLE).write_text(ROW % ("a.png", letter))
    assert "a.png (control characters)" in refusal(tmp_path, "a.png")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "Expecting"),
        ("[]", "no JSON object"),
        ("5", "no JSON object"),
        ("null", "no JSON object"),
        ('"a.png"', "no JSON object"),
        ("[" * 100_000, "maximum recursion"),
        ("{}", "no text under 'file_name'"),
        ('{"file_name": "a.png"}', "no text under 'text'"),
        ('{"text": "x"}', "no text under 'file_name'"),
        ('{"file_name": "a.png", "text": null}', "no text under 'text'"),
        ('{"file_name": "a.png", "text": 5}', "no text under 'text'"),
        ('{"file_name": ["a.png"], "text": "x"}', "no text under 'file_name'"),
        ('{"file_name": "", "text": "x", "file_name": 7}', "no text under 'file_name'"),
        ('{"file_name": "../a.png", "text": "x"}', "'../a.png' is no file's name"),
        ('{"file_name": "/etc/passwd", "text": "x"}', "'/etc/passwd' is no file's name"),
        ('{"file_name": "C:\\\\a.png", "text": "x"}', "'C:\\a.png' is no file's name"),
        ('{"file_name": "b/../a.png", "text": "x"}', "'b/../a.png' is no file's name"),
        (ROW % ("first.png", "y"), "'first.png' is there twice"),
    ],
)
def test_tables_that_can_not_be_read(tmp_path, row, why):
    (tmp_path / TABLE).write_text(ROW % ("first.png", "x") + "  \n" + row)
    told = rf"error\[E303\]: can't read '.*', whose row 2 is wrong \({re.escape(why)}.*\)\."
    assert re.match(rf"{told} Hint: write lines such as", refusal(tmp_path, "a.png"))


def test_tables_in_another_encoding(tmp_path):
    (tmp_path / TABLE).write_bytes((ROW % ("a.png", "x")).encode("utf-16"))
    assert re.search(r"E303.*row 1 is wrong \(no UTF-8 text\)", refusal(tmp_path, "a.png"))


def test_templates_are_a_prompt_a_line(tmp_path):
    (tmp_path / "t.txt").write_text("a  photo of {}\r\n\n{} and {y}\na photo of {}\n")
    assert read_prompts(tmp_path / "t.txt", "templates") == ("a photo of {}", "{} and {y}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}\na photo\n" + "{}" * 501, "can't use 2 lines: line 2 (no {}); line 3 (1002 letters)."),
        ("{}\n\x1b{}", "can't use 1 lines: line 2 (control characters)."),
        (" \n", "no prompts."),
    ],
)
def test_templates_that_can_not_be_used_are_named(tmp_path, text, told):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path / "t.txt", "templates")
    assert str(caught.value).startswith("error[E321]: templates '")
    assert f"t.txt': {told} Hint: write one prompt a line" in str(caught.value)


def test_templates_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"E321.*none\.txt' \(No such file or directory\)"):
        read_prompts(tmp_path / "none.txt", "templates")
