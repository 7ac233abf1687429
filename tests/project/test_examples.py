"""Examples of the documentation: what is written with its answer is run and answers so."""

import ast
import doctest
import re
from pathlib import Path

import pytest
from registered import write_files

from pti_pipeline.bundle import seal
from pti_pipeline.families import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?:python|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page):
    return FENCE.findall(page.read_text("utf-8"))


def called(page):
    return str(page.relative_to(ROOT))


ASKED = [page for page in PAGES if any(">>> " in text for text in examples(page))]


def test_there_are_examples():
    assert len(ASKED) >= 2


@pytest.mark.parametrize("page", ASKED, ids=called)
def test_a_pages_examples_answer_as_written(page):
    """Those of a page go on from one another."""
    asked = [text for text in examples(page) if ">>> " in text]
    whole = doctest.DocTestParser().get_doctest("\n".join(asked), {}, called(page), str(page), 0)
    runner, told = doctest.DocTestRunner(), []
    runner.run(whole, out=told.append)
    assert runner.failures == 0 and runner.tries > 0, "".join(told)


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_other_examples_are_python(page):
    for text in examples(page):
        if ">>> " not in text:
            ast.parse(text)


def run(page, word):
    """What the page's example with ``word`` in it leaves behind."""
    (code,) = (text for text in examples(ROOT / page) if word in text)
    names = {}
    exec(compile(code, page, "exec"), names)  # noqa: S102 (the project's own page)
    return names


def test_two_characters_are_drawn_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = load("world", "cpu")
    for name in ("mei", "kit"):
        folder = tmp_path / name / "bundle"
        folder.mkdir(parents=True)
        write_files(base, folder, f"<{name}>")
        facts = {"base": base.name, "base_fingerprint": base.fingerprint}
        seal(folder, {**facts, "token": f"<{name}>", "run": "r"})
    assert run("docs/how-to/registry.md", "attached(")["images"].shape == (1, 1, 3, 48, 48)


@pytest.mark.slow
@pytest.mark.usefixtures("registry_store")
def test_a_registered_character_is_asked_from_python(mei, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run("docs/how-to/registry.md", "pyfunc.load_model")["answer"]
    assert len(answer) == 2
    assert (tmp_path / "mei.png").read_bytes().startswith(b"\x89PNG")
