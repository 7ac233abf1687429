"""The registration step: a chosen LoRA and its pivot become a version of a registered model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pti_pipeline.bundle import CARD_FILE, GRID_FILE
from pti_pipeline.families.license import base_license
from pti_pipeline.headers import word_of
from pti_pipeline.steps.card import model_card, readme
from pti_pipeline.steps.gate import Candidate, find_candidate, numbers, refusal
from pti_pipeline.steps.packing import close, collect
from pti_pipeline.tracking import registry
from pti_pipeline.tracking.runs import open_run

SHOWN = ("distance/", "reconstruction/", "editability/", "leak/", "diversity/", "choice/")
CHOICE = ("pti.choice_reason", "pti.certified", "pti.bracketed", "pti.sound")
"""Tags of the sweep that chose, which the version has too."""


@dataclass(frozen=True)
class Registered:
    """A version, and what the gate said of it: ``passed``, or what was not measured or forced."""

    name: str
    version: str
    gate: str


def register(
    run_id: str, name: str, alias: str, study: str = "", force: bool = False
) -> Registered:
    """Register a run's character and move ``alias`` to it.

    Parameters
    ----------
    run_id : str
        A run of finetune or invert, or a sweep's summary run: then the one chosen in it.
    name : str
        Of the registered model; the placeholder token's letters by default (empty text).
    alias : str
    study : str
        Run id of the study that this belongs to.
    force : bool
        Register it though it collapsed or leaks; its tags and card say so.

    Raises
    ------
    UsageError
        If the run holds no character, or a name is not allowed.
    DivergedError, ModelError
        If the character collapsed, or leaks; see :func:`pti_pipeline.steps.gate.refusal`.
    """
    candidate = find_candidate(run_id)
    found = candidate.run
    token = found.tags["pti.token"]
    name = name or word_of(token)
    registry.check_names(name, alias)
    gate = _gate(candidate, force)
    license = base_license(found.tags["pti.base"])
    card = model_card(candidate, name, license, gate)
    step = {"pti.step": "register", "pti.study": study, "pti.registered": found.id}
    words = {"run": found.id, "name": name, "alias": alias, "force": "yes" if force else "no"}
    with open_run(f"register {name}", words, step) as run:
        with TemporaryDirectory() as folder:
            bundle = collect(candidate, Path(folder))
            text = readme(card, candidate, license, (bundle / GRID_FILE).is_file())
            (bundle / CARD_FILE).write_text(text, encoding="utf-8")
            close(candidate, bundle)
            tags = {**_tags(candidate), "pti.base_license": license or "unknown", "pti.gate": gate}
            prompt = f"a photo of {token}"
            version = registry.register(name, bundle, found.id, prompt, tags, card, alias)
        run.set_tags({"pti.model": name, "pti.version": version, "pti.gate": gate})
    return Registered(name, version, gate)


def _gate(candidate: Candidate, force: bool) -> str:
    """Say what the gate says, or raise it."""
    error = refusal(candidate)
    if error is None:
        return "passed" if candidate.measured else "the leak was not measured"
    if not force:
        raise error
    return f"forced: {error.what}"


def _tags(candidate: Candidate) -> dict[str, str]:
    """Numbers and words that a version carries; keys with dots, as tags are written."""
    run, sweep = candidate.run, candidate.sweep
    shown = {k: v for k, v in numbers(candidate).items() if k.startswith(SHOWN)}
    facts = {key.replace("/", "."): f"{value:.6g}" for key, value in shown.items()}
    words = {key: value for key, value in run.tags.items() if key.startswith("pti.")}
    chosen = {} if sweep is None else {k: sweep.tags[k] for k in CHOICE if k in sweep.tags}
    return {**words, "pti.certified": "no", **chosen, **facts}
