"""Every code is raised somewhere, told in the reference with its kind, and shown by a test."""

import ast
import pickle
import re
from pathlib import Path

import pytest

from pti_pipeline import errors
from pti_pipeline.errors import ModelError, PtiError, UsageError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/errors.md").read_text("utf-8")
CODE = re.compile(r"E\d{3}")
KINDS = {name: each for name, each in vars(errors).items() if isinstance(each, type)}


def constants(tree):
    """Texts of a syntax tree that are codes."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and CODE.fullmatch(text)}


def trees(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


USED = set().union(*(constants(tree) for _, tree in trees("pti_pipeline")))
LISTED = re.findall(r"^\| `(E\d{3})` \|", PAGE, re.MULTILINE)


def test_codes_of_the_package_and_of_the_page_are_the_same():
    assert len(LISTED) == len(set(LISTED))
    assert set(LISTED) == USED


def test_a_codes_first_digit_is_the_exit_code_of_its_kind():
    """Of E9.., that of a divergence, or of what failed underneath."""
    seen = set()
    for path, tree in trees("pti_pipeline"):
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            kind, first = KINDS.get(node.func.id), node.args[0]
            if kind is None or not isinstance(first, ast.Constant):
                continue
            code, expected = first.value, {"E999": 1}.get(first.value, int(first.value[1]))
            seen.add(code)
            assert kind.exit_code == (10 if expected == 9 else expected), (path, code)
    assert len(seen) > 60
    assert USED - seen <= {"E903", "E904", "E905"}  # classes of their own, and a run's tag


def test_the_page_tells_every_exit_code():
    for kind in KINDS.values():
        if issubclass(kind, PtiError):
            assert re.search(rf"^\| {kind.exit_code} \| ", PAGE, re.MULTILINE), kind


def test_every_code_is_named_by_a_test():
    own = Path(__file__)
    texts = (p.read_text("utf-8") for d in ("tests", "faults") for p in (ROOT / d).rglob("*.py"))
    named = set().union(*(CODE.findall(text) for text in texts if text != own.read_text("utf-8")))
    assert USED - named == set()


@pytest.mark.parametrize("kind", [ModelError, UsageError])
def test_a_workers_error_arrives_as_it_was(kind):
    error = kind("E405", "this LoRA does not fit", "use the base that it was trained on")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (as a pool of processes sends it)
    assert type(again) is kind and str(again) == str(error)
    assert (again.code, again.hint, again.exit_code) == (error.code, error.hint, error.exit_code)
