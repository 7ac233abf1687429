"""Names that others chose: they stay names, on the terminal, on pages and on the disk."""

from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from mlflow import MlflowClient
from registered import make_pivot, write_run
from safetensors.torch import save_file
from written import write_study

from faults.texts import TEXTS
from pti_pipeline.bundle import PIVOT_FILE, seal
from pti_pipeline.errors import ModelError, PtiError, StoreError, UsageError
from pti_pipeline.headers import word_of
from pti_pipeline.pivot import load_pivot, save_pivot
from pti_pipeline.report.page import page
from pti_pipeline.steps.card import code, model_card, plain, readme
from pti_pipeline.steps.export import export
from pti_pipeline.steps.gate import find_candidate
from pti_pipeline.steps.register import register
from pti_pipeline.steps.report import gather
from pti_pipeline.tracking.find import find_runs, get_run
from pti_pipeline.tracking.outbox import Outbox
from pti_pipeline.tracking.registry import check_names
from pti_pipeline.tracking.runs import open_run

PAGES = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg/onload=alert(1)>'",
    "&lt;script&gt;",
    "</title></style></script><script>alert(2)</script>",
    "![x](http://example.org/x.png)",
    "[x](javascript:alert(1))",
    "`` `x` | y ``\n# z\n",
    "javascript:alert(1)",
)
PATHS = ("../../x", "/etc/x", "..\\..\\x", "C:\\x", "~/x", "..", ".", "猫" * 60, "-rf", "nul\x7f")
ALL = (*TEXTS, *PAGES, *PATHS)


def test_an_error_is_one_line_that_a_terminal_only_shows():
    for text in ALL:
        error = PtiError("E210", f"no run '{text}'", f"copy {text}")
        assert str(error).isprintable() and str(error).startswith("error[E210]: no run '")


def test_a_token_is_a_word_that_can_be_shown(base, tmp_path):
    taken = []
    for text in ALL:
        try:
            base.check_token(text)
        except UsageError as error:
            assert error.code == "E203" or text in "-."  # words of the base's vocabulary
        else:
            taken.append(text)
    assert not any(" " in text or not text.isprintable() or len(text) > 64 for text in taken)
    assert "<script>alert(1)</script>" in taken  # a word, if a strange one


def test_a_pivots_token_is_one_too(base, tmp_path):
    path = tmp_path / "pivot.safetensors"
    for text in ("", "two words", "\x1b[2Jx", "a\nb", "x" * 65):
        facts = {"token": text, "initializer": "cat", "start": "[0.0, 0.0]"}
        save_file({text: torch.zeros(1, 2)}, path, facts)
        with pytest.raises(ModelError, match="E402"):
            load_pivot(path)


def test_a_tokens_file_stays_in_its_folder(tmp_path):
    for text in ALL:
        name = f"{word_of(text)}-bundle.safetensors"
        path = (tmp_path / name).resolve()
        assert path.parent == tmp_path.resolve() and not name.startswith((".", "-"))
        path.write_text("")  # it is a name that a file can have
        assert [p.name for p in tmp_path.iterdir()] == [name]
        path.unlink()


@pytest.mark.parametrize("token", ["../../x", "/etc/x", "..\\x", "<b>", "猫" * 60])
def test_an_export_stays_in_its_folder(base, tmp_path, token):
    bundle, output = tmp_path / "bundle", tmp_path / "a" / "b" / "c"
    bundle.mkdir()
    save_pivot(make_pivot(base, token), bundle / PIVOT_FILE)
    facts = {"base": base.name, "base_fingerprint": base.fingerprint, "run": "../../../x"}
    seal(bundle, {**facts, "token": token, "initializer": "cat"})
    before = {*tmp_path.rglob("*")}
    written, _ = export(str(bundle), ["diffusers", "embedding"], output)
    made = {*tmp_path.rglob("*")} - before - {tmp_path / "a", tmp_path / "a" / "b", output}
    assert len(written) == 2 and all(path.is_relative_to(output) for path in made)


def test_no_model_is_called_so():
    refused = [text for text in ALL if not text.isalnum()]
    assert len(refused) == len(ALL) - 1  # one is of letters alone
    for text in refused:
        with pytest.raises(UsageError, match="E252"):
            check_names(text, "champion")
    for text in (*PAGES, *PATHS[:7], "latest", "v1", "", "a/b", "x" * 65):
        with pytest.raises(UsageError, match="E252"):
            check_names("x", text)


def test_runs_are_told_in_one_line(store):
    for text in ("../../x\n<script>", "\x1b]0;x\x07"):
        with open_run(text, {}, {"pti.step": "x"}) as run:
            run.log_image(f"samples/{text}", np.zeros((4, 4, 3), np.uint8), 0)
        assert get_run(run.id).name.isprintable()
        logged = MlflowClient().list_artifacts(run.id, "images")
        assert {file.path.rpartition("/")[0] for file in logged} == {"images"} and logged
    assert find_runs(step="x")[0].name == "../../x <script>"


def test_a_long_name_is_no_trouble_of_the_disk(store):
    with open_run("r", {}, {"pti.step": "x"}) as run:
        run.log_image("x" * 3000, np.zeros((4, 4, 3), np.uint8), 0)
    assert MlflowClient().list_artifacts(run.id, "images")


@pytest.mark.parametrize("run_id", ["../../x", "/etc/x", "", "a" * 31, "..%2f" * 8])
def test_a_servers_run_id_makes_no_folder(tmp_path, run_id):
    with pytest.raises(StoreError, match="E504"):
        Outbox(tmp_path / "root", run_id)
    assert [*tmp_path.iterdir()] == []


class Tags(HTMLParser):
    """Elements and attributes of a page, and all of its text."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.attributes += attributes

    def handle_data(self, text):
        self.text += text


def everywhere(value, text):
    """The same data with every text in it another; what selects code paths stays."""
    if isinstance(value, str):
        return text
    if is_dataclass(value):
        keep = ("key", "id", "choice", "state", "registered", "link")  # of the server, not the run
        changes = {f.name: everywhere(getattr(value, f.name), text) for f in fields(value)}
        return replace(value, **{k: v for k, v in changes.items() if k not in keep})
    if isinstance(value, tuple | list):
        return type(value)(everywhere(each, text) for each in value)
    if isinstance(value, dict) and any(isinstance(each, str) for each in value.values()):
        return {f"{text}{key}": everywhere(each, text) for key, each in value.items()}
    return value


def test_a_study_of_hostile_texts_is_a_page_of_texts(studied):
    usual = Tags(page(studied))
    for text in PAGES:
        odd = Tags(page(everywhere(studied, text)))
        assert {*odd.names} == {*usual.names}
        assert odd.names.count("script") == 1
        assert {name for name, _ in odd.attributes} == {name for name, _ in usual.attributes}
        assert all(value[:5] == "data:" for name, value in odd.attributes if name == "src")
        assert text.splitlines()[0] in odd.text


@pytest.fixture
def studied(store):
    return gather(get_run(write_study(twins=True)), store / "grids")


def markdown(text):
    return Tags(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_a_card_shows_texts_as_texts():
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    for text in (*PAGES, *(text for text in TEXTS if text.strip())):
        for shown in (code(text), plain(text)):
            made = markdown(f"| a | b |\n|---|---|\n| {shown} | x |\n")
            assert {*made.names} <= table | {"code", "em", "strong"}
            assert made.names.count("td") == 2, made.text


def test_a_whole_card_of_a_hostile_run(base, store):
    for text in PAGES[:5]:
        token = text.replace(" ", "/").replace("\n", "")
        run = write_run(base, token, "invert", tags={"pti.base": text, "pti.initializer": text})
        candidate = find_candidate(run)
        card = model_card(candidate, "x", "", f"forced: {text}")
        made = markdown(card)
        assert not {"script", "img", "svg", "a"} & {*made.names} and token in made.text
        front = readme(card, candidate, "", False).split("---\n")[1]
        assert all(line.partition(": ")[2][0] in '"[' for line in front.splitlines())


def test_a_hostile_token_can_be_registered_under_its_letters(base, store):
    run = write_run(base, "</script><b>", "invert")
    assert register(run, "", "champion").name == "scriptb"
