"""Every command and option, as click knows them: what follows on the page of options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

PAGE = "docs/reference/options"
SHARED = "debug"
"""Of every command: told once, on the page itself."""


def listing(command: click.Command, name: str) -> str:
    """Markdown of a command and of all below it, each a section with a table of its options."""
    return "\n\n".join(_sections(command, name))


def _sections(command: click.Command, name: str) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield _section(command, name)
        return
    for key, below in command.commands.items():
        if not below.hidden:
            yield from _sections(below, f"{name} {key}")


def _section(command: click.Command, name: str) -> str:
    text = _plain(inspect.cleandoc(command.help or ""))
    rows = [_row(option) for option in command.params if option.name != SHARED]
    if not rows:
        return f"## {name}\n\n{text}"
    head = "| option | default | takes | what |\n|---|---|---|---|"
    return f"## {name}\n\n{text}\n\n" + "\n".join([head, *rows])


def _row(option: click.Parameter) -> str:
    default = "required" if option.required else _code(option.default)
    what = _plain(getattr(option, "help", None) or "")
    return f"| `{option.opts[0]}` | {default} | {takes(option.type)} | {what} |"


def takes(kind: click.ParamType) -> str:
    """Say in words what an option of this type takes."""
    if isinstance(kind, click.Choice):
        return ", ".join(_code(value) for value in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        noun = "whole number" if isinstance(kind, click.IntRange) else "number"
        return f"{noun}, {_bounds(kind.min, kind.max)}"
    words = {"integer": "whole number", "float": "number", "boolean": "`yes`, `no`"}
    return words.get(kind.name, kind.name)


def _bounds(least: float | None, most: float | None) -> str:
    if most is None:
        return f"{least:g} or more"
    return f"{least:g} to {most:,}"


def _code(value: Any) -> str:
    return "" if value in ("", None) else f"`{value}`"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, but for options, which are code."""
    text = re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)
    return re.sub(r"(?<!\S)(--[a-z-]+)", r"`\1`", text)


def add_commands(app: Any, page: str, source: list[str]) -> None:
    """Put the listing at the end of its page."""
    if page == PAGE:
        from pti_pipeline.cli import main

        source[0] += "\n\n" + listing(main, "pti")


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", add_commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
