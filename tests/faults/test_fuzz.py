"""Random inputs: a few hundred here, ten thousand by ``python -m faults.fuzz``."""

import json
from random import Random

import pytest

from faults import fuzz
from faults.drawn import mutant, text, value


def test_random_inputs_end_as_promised(capsys):
    assert fuzz.run_chunk(7, 480) == [480, 0, 0], capsys.readouterr().err


def test_cases_depend_on_their_chunk_and_number_alone():
    drawn = [(text(r), value(r), mutant(r, b"x" * 99)) for r in (Random("3/4"), Random("3/4"))]
    assert repr(drawn[0]) == repr(drawn[1])
    assert text(Random("3/5")) != text(Random("3/6"))


def test_what_nobody_thought_of_and_what_hangs_is_counted(monkeypatch, capsys):
    def broken(*_):
        raise KeyError("x")

    def endless(*_):
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: S112, as a library might
                continue

    monkeypatch.setattr(fuzz, "READERS", (broken, endless))
    monkeypatch.setattr(fuzz, "PATIENCE", 0.1)
    assert fuzz.run_chunk(0, 2) == [2, 1, 1]
    assert "broken: KeyError: 'x'" in capsys.readouterr().err


def test_the_long_form_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    tried = []

    def counted(chunk, cases):
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(chunk)
        return [cases, 0, 0]

    monkeypatch.setattr(fuzz, "LONG", 4)
    monkeypatch.setattr(fuzz, "run_chunk", counted)
    with pytest.raises(KeyboardInterrupt):
        fuzz.measure(True, tmp_path)
    assert json.loads((tmp_path / "fuzz.json").read_text()) == {
        "0": [fuzz.CHUNK, 0, 0],
        "1": [fuzz.CHUNK, 0, 0],
    }
    monkeypatch.setattr(
        fuzz, "run_chunk", lambda chunk, cases: tried.append(chunk) or [cases, 1, 0]
    )
    counts = fuzz.measure(True, tmp_path)
    assert tried == [0, 1, 2, 3]
    assert counts == {"fuzz_cases": 4 * fuzz.CHUNK, "unclassified": 2, "hangs": 0}


@pytest.mark.slow
def test_ten_thousand_random_inputs():
    assert fuzz.measure() == {"fuzz_cases": fuzz.CHUNK, "unclassified": 0, "hangs": 0}
