"""What all commands share: errors and warnings in one line each, and ``--debug``."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from pti_pipeline.errors import DEBUG, PtiError, UsageError, printable, unexpected


class Group(click.Group):
    """Tells errors in one line, with the exit code of their kind."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the option that shows tracebacks."""
        if not isinstance(cmd, click.Group):
            cmd.params.append(_debug_option())
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the subcommand."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            return _end(ctx, _usage(ctx, error))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand."""
        if args[0] not in self.commands:
            near = get_close_matches(args[0], self.commands)
            raise _mistyped(f"no command '{args[0]}'", near, ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        _ready_streams()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except click.UsageError as error:
                _end(ctx, _usage(ctx, error))
            except PtiError as error:
                _end(ctx, error)
            except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
                raise  # click ends these by itself
            except Exception as error:
                _end(ctx, unexpected(error, ctx.meta.get(DEBUG, False)))


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        default="no",
        type=bool,
        show_default=True,
        envvar=DEBUG,
        expose_value=False,
        callback=_remember,
        help="Show the traceback of an error: yes or no.",
    )


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = value
    if value:
        os.environ[DEBUG] = "yes"


def _end(ctx: click.Context, error: PtiError) -> Any:
    """Tell an error, and where it comes from if that is asked for, and exit."""
    if ctx.meta.get(DEBUG):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    click.echo(str(error), err=True)
    ctx.exit(error.exit_code)


def _usage(ctx: click.Context, error: click.UsageError) -> UsageError:
    """Say what click says of a command line in one line."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    where, what = error.ctx or ctx, error.format_message().rstrip(".")
    near: list[str] = []
    if isinstance(error, click.NoSuchOption):
        what = f"no option '{error.option_name}'"
        known = [name for each in where.command.params for name in each.opts]
        near = get_close_matches(error.option_name, known)
    return _mistyped(what, near, where)


def _mistyped(what: str, near: list[str], where: click.Context) -> UsageError:
    hint = f"did you mean {near[0]}" if near else f"see {where.command_path} --help"
    return UsageError("E260", what, hint)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line, whoever gives it."""
    click.echo(f"warning: {printable(str(message))}", err=True)


def _ready_streams() -> None:
    """Let output go on where it is closed, or where letters are unknown to it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this process
            sink = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, sink)
        elif hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
