"""The model card of a registered character."""

from __future__ import annotations

import json
import math
import re

from pti_pipeline.bundle import GRID_FILE
from pti_pipeline.errors import printable
from pti_pipeline.hashes import SHOWN
from pti_pipeline.steps.gate import Candidate, numbers

AGAINST = {"invert": ("class", "class word"), "finetune": ("pivot", "pivot")}


def model_card(candidate: Candidate, name: str, license: str, gate: str) -> str:
    """Write what a character is, where it comes from and how it may be used, in Markdown.

    Parameters
    ----------
    candidate : Candidate
    name : str
        Of the registered model.
    license : str
        Of the base model; empty if it is not known.
    gate : str
        What the gate said.
    """
    tags = candidate.run.tags
    token = code(tags["pti.token"])
    fingerprint = tags["pti.base_fingerprint"][:SHOWN]
    rows = {
        "base model": f"{code(tags['pti.base'])}, fingerprint `{fingerprint}`",
        "license of the base model": license or "not known here: see where the base comes from",
        "initializer token": code(tags["pti.initializer"]),
        "run": f"{code(candidate.run.name)}, `{candidate.run.id}`",
        "distance": _distance(candidate),
        "leak of positions": _leak(candidate),
        "gate": plain(gate),
    }
    lines = [
        f"# {token}",
        "",
        f"A character learned by pivotal tuning. Write {token} in a prompt to draw it.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {label} | {text} |" for label, text in rows.items()),
    ]
    if reason := candidate.sweep and candidate.sweep.tags.get("pti.choice_reason"):
        lines += ["", f"Why this one: {plain(reason)}."]
    prompt = "--prompt='a photo of {} on the beach'"
    lines += ["", "```sh", f"pti generate --model=models:/{name}@champion {prompt}", "```", ""]
    return "\n".join(lines)


def readme(card: str, candidate: Candidate, license: str, pictured: bool) -> str:
    """Make the file of a card: with what hubs read first, and the samples."""
    tags = candidate.run.tags
    front = {
        "base_model": tags["pti.base"],
        "license": license,
        "instance_prompt": f"a photo of {tags['pti.token']}",
        "tags": ["text-to-image", "textual-inversion", "lora", "pivotal-tuning"],
    }
    words = [f"{key}: {json.dumps(value)}" for key, value in front.items() if value]
    samples = f"\n![Samples at fixed seeds]({GRID_FILE})\n" if pictured else ""
    return "\n".join(["---", *words, "---", "", card]) + samples


def code(text: str) -> str:
    """Quote for Markdown, which would take ``<mei>`` for HTML and a bar for a column."""
    runs = re.findall("`+", text)
    mark = "`" * (1 + max(map(len, runs), default=0))
    space = " " if runs else ""
    return f"{mark}{space}{printable(text)}{space}{mark}".replace("|", "\\|")


def plain(text: str) -> str:
    """Keep text from being taken for HTML, a column, a link or a picture."""
    return re.sub(r"([\\`<\[\]|&])", r"\\\1", printable(text.replace("\n", " ")))


def _distance(candidate: Candidate) -> str:
    known = numbers(candidate)
    text = f"{known['distance/delta_norm']:.4g}"
    if "choice/distance" not in known:
        return text
    what = "knee" if candidate.run.tags["pti.step"] == "invert" else "limit"
    if candidate.sweep is not None and candidate.sweep.tags.get("pti.bracketed") == "no":
        return f"{text} (the sweep holds no {what})"
    ends = [f"{known[key]:.4g}" for key in ("choice/low", "choice/high") if key in known]
    interval = f", 95 % interval {' to '.join(ends)}" if len(ends) > 1 else ""
    return f"{text} ({what} at {known['choice/distance']:.4g}{interval})"


def _leak(candidate: Candidate) -> str:
    known = numbers(candidate)
    key, reference = AGAINST[candidate.run.tags["pti.step"]]
    if f"leak/{key}_auc" not in known:
        return "not measured"
    auc, *ends = (known.get(f"leak/{key}_auc{end}", math.nan) for end in ("", "_low", "_high"))
    interval = " to ".join(f"{end:.3f}" for end in ends)
    sweep = candidate.sweep
    certified = sweep is not None and sweep.tags.get("pti.certified") == "yes"
    words = "certified free" if certified else "not certified"
    return f"AUC {auc:.3f} against the {reference}'s (95 % {interval}); {words}"
