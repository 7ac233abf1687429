"""What all commands share: one line for every error and warning, ``--debug``, odd streams."""

import re
import subprocess
import sys
import warnings

import click
import pytest
import torch
from click.testing import CliRunner

from pti_pipeline.cli import main
from pti_pipeline.cli.group import Group
from pti_pipeline.errors import DEBUG, UsageError


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv(DEBUG, "no")  # a command's --debug=yes is not for the tests after it


@click.group(cls=Group)
def program():
    pass


@program.command("break")
def unexpected():
    raise RuntimeError("two\nlines \x1b[2J")


@program.command("refuse")
def refuse():
    raise UsageError("E202", "steps is 0", "use an integer from 1")


@program.command("exhaust")
def exhaust():
    torch.empty(10**14)


@program.command("warn")
def warn():
    warnings.warn("look\nhere", stacklevel=1)


def run(*words):
    return CliRunner().invoke(program, words)


def test_an_unexpected_error_is_one_line_that_asks_for_a_report():
    result = run("break")
    told = r"error[E999]: RuntimeError: two lines \x1b[2J. Hint: run again with --debug=yes"
    assert result.exit_code == 1
    assert result.stderr == f"{told} and report it.\n"


def test_memory_that_runs_out_anywhere_is_told():
    """By PyTorch's own error, of this system: it is no mistake of ours."""
    result = run("exhaust")
    assert result.exit_code == 6
    assert re.match(r"error\[E601\]: memory ran out \(.*\)\. Hint: use --precision", result.stderr)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("command", "code"), [("break", 1), ("refuse", 2)])
def test_debug_shows_where_an_error_comes_from_besides_its_line(command, code):
    result = run(command, "--debug=yes")
    assert result.exit_code == code
    assert result.stderr.startswith("Traceback") and "in invoke" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error[E")
    assert "Traceback" not in run(command, "--debug=no").stderr


def test_debug_reaches_the_steps_of_a_study_by_their_environment(monkeypatch):
    monkeypatch.setenv(DEBUG, "yes")
    assert "Traceback" in run("break").stderr


@pytest.mark.parametrize("name", [*main.commands, *main.commands["world"].commands])
def test_every_command_has_debug(name):
    command = main.commands.get(name) or main.commands["world"].commands[name]
    if not isinstance(command, click.Group):
        assert [o.name for o in command.params].count("debug") == 1


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--nothing"], "see "),
        (["refus"], "did you mean refuse"),
        (["zzz"], "see "),
        (["refuse", "--debgu=yes"], "did you mean --debug"),
        (["refuse", "--debug=perhaps"], "see "),
        (["refuse", "more"], "see "),
    ],
)
def test_what_was_mistyped_is_told_in_one_line(words, hint):
    result = run(*words)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert result.output.startswith("error[E260]: ") and f"Hint: {hint}" in result.output


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line_each():
    result = run("warn")
    assert result.exit_code == 0 and result.stderr == "warning: look here\n"


def pti(words, **options):
    command = [sys.executable, "-m", "pti_pipeline", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    done = pti(["world", "render", "--count=1", f"--folder={tmp_path}/雪"])
    assert done.returncode == 0 and (tmp_path / "雪" / "1.png").is_file(), done.stderr
    assert done.stdout == rf"1 pictures in {tmp_path}/\u96ea." + "\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_leave_the_exit_code(closed):
    command = f"{sys.executable} -m pti_pipeline invert --lr=abc {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr


def test_a_reader_that_goes_away_ends_a_command_quietly():
    command = f"{sys.executable} -m pti_pipeline invert --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Usage:") and done.stderr == ""
