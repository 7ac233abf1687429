"""Run ids and names that are not what a command asks for."""

from __future__ import annotations

from collections.abc import Iterator

from faults.parameters import Case
from faults.stage import Stage

NO_RUN = {"missing": "E210", "deleted": "E210", "nonsense": "E210", "empty": "E210"}
NO_PIVOT = {
    **NO_RUN, "foreign": "E211", "running": "E251", "failed": "E251", "sweep": "E211",
    "study": "E211", "tuning": "E211",
}  # fmt: skip
NO_CHARACTER = {
    **NO_RUN, "foreign": "E215", "running": "E251", "failed": "E251", "sweep": "E215",
    "study": "E215",
}  # fmt: skip
NO_SWEEP = {
    **NO_RUN, "foreign": "E213", "running": "E213", "failed": "E213", "study": "E213",
    "tuning": "E213", "inversion": "E213", "sweep": "E224",
}  # fmt: skip
NO_STUDY = {
    **NO_RUN, "foreign": "E230", "running": "E230", "failed": "E230", "sweep": "E230",
    "tuning": "E230", "inversion": "E230",
}  # fmt: skip
NO_TRAINING = {**NO_RUN, "foreign": "E212", "sweep": "E212", "study": "E212"}
NO_MODEL = {**NO_CHARACTER, "nonsense": "E216", "empty": "E216"}
UNKNOWN = {kind: "E210" for kind in NO_RUN if kind != "empty"}

ASKED = {
    ("finetune", "--pivot"): NO_PIVOT,
    ("sweep", "--stage=finetune", "--lrs=0.001", "--pivot"): {**NO_PIVOT, "empty": "E260"},
    ("register", "--run"): NO_CHARACTER,
    ("generate", "--model"): NO_MODEL,
    ("export", "--model"): NO_MODEL,
    ("select", "--run"): NO_SWEEP,
    ("report", "--run"): NO_STUDY,
    ("evaluate", "--run"): {k: v for k, v in NO_TRAINING.items() if k != "empty"},
    ("ui", "--run"): UNKNOWN,
    ("ui", "--study"): {k: v for k, v in NO_STUDY.items() if k != "empty"},
    ("invert", "--study"): {k: v for k, v in NO_STUDY.items() if k != "empty"},
    ("select", "--run=x", "--study"): {k: v for k, v in NO_STUDY.items() if k != "empty"},
}
"""By command and option: which runs it refuses, and how."""

MODELS = (
    "models:/nobody@champion", "models:/nobody/1", "models:/mei", "models:/../mei@x", "models:/",
    "models:/a/b/c", "models:/mei/-1", "models:/mei@", "models:/mei@a@b", "models:/%2e%2e@x",
)  # fmt: skip
NAMES = ("../x", ".x", "-x", "a b", "a/b", "x" * 65, "a'b", "<x>", "a\nb", "a:b")
ALIASES = ("", "a b", "latest", "v1", "../x", "a.b", "x" * 65, "@", "a\tb")


def run_ids(stage: Stage) -> Iterator[Case]:
    """Runs of another kind or state, registered versions that there are not, and bad names."""
    for words, codes in ASKED.items():
        for kind, code in codes.items():
            yield Case((*words[:-1], f"{words[-1]}={stage.runs[kind]}"), code)
    for command in ("generate", "export"):
        for uri in MODELS:
            yield Case((command, f"--model={uri}"), "E408")
    two = stage.runs["tuning"], stage.runs["inversion"]
    yield Case(("generate", f"--model={two[0]}", "--weights=1,2"), "E253")
    yield Case(("generate", f"--model={','.join(two)}"), "E254")
    yield Case(("generate", f"--model={two[0]},"), "E216")
    for name in NAMES:
        yield Case(("register", f"--run={two[0]}", f"--name={name}"), "E252")
    for alias in ALIASES:
        yield Case(("register", f"--run={two[0]}", f"--alias={alias}"), "E252")
    yield Case(("export", f"--model={two[1]}", "--form=kohya"), "E241")
    yield Case(("ui", f"--run={two[0]}", f"--study={two[0]}"), "E260")
    yield Case(("finetune", f"--pivot={two[1]}", "--rank=200"), "E202")
