"""Under which license a base model may be used, as its own card says."""

from __future__ import annotations

import re
from pathlib import Path

from pti_pipeline.families import WORLD

FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
LINE = re.compile(r"^(license|license_name):[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)


def base_license(base: str) -> str:
    """Return the license in the front matter of a base model's ``README.md``.

    Parameters
    ----------
    base : str
        As for :func:`pti_pipeline.families.load`.

    Returns
    -------
    str
        E.g. ``apache-2.0``; empty if there is no card on this machine, or it does not say.
    """
    card = (WORLD if base == "world" else Path(base)) / "README.md"
    try:
        front = FRONT.match(card.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    said: dict[str, str] = dict(LINE.findall(front[1])) if front else {}
    license = said.get("license", "")
    return said.get("license_name", license) if license == "other" else license
