"""Malformed inputs through the real commands: each ends with one line and its exit code.

``python -m faults.inputs`` prints the counts, and whatever was not as it should be.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from click.testing import CliRunner

from faults.files import files
from faults.parameters import Case, parameters
from faults.run_ids import run_ids
from faults.stage import Stage, staged
from pti_pipeline.cli import main

PATIENCE = 20
"""Seconds that a command has to refuse."""


class LateError(BaseException):
    """A command did not refuse in time; no handler of errors is to catch this."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes
    ----------
    case : Case
    traceback : bool
        Whether anything but an error of the table was told or raised.
    expected : bool
        Whether it ended with its own code in one line.
    output : str
    """

    case: Case
    traceback: bool
    expected: bool
    output: str


def measure(long: bool = False) -> dict[str, float]:
    """Count malformed inputs, and what they did that they must not.

    Parameters
    ----------
    long : bool
        There is no longer form: all are tried in either.
    """
    signal.signal(signal.SIGALRM, _late)
    with staged() as stage:
        before = stage.count()
        outcomes = [attempt(case) for case in every_case(stage)]
        left = stage.count() - before
    for outcome in outcomes:
        if outcome.traceback or not outcome.expected:
            words, code = " ".join(outcome.case.words)[:200], outcome.case.code
            print(f"{words}\n  {code} expected: {outcome.output.strip()[-400:]}", file=sys.stderr)
    return {
        "inputs": len(outcomes),
        "tracebacks": sum(outcome.traceback for outcome in outcomes),
        "wrong_codes": sum(not outcome.expected for outcome in outcomes),
        "runs_left": left,
    }


def every_case(stage: Stage) -> Iterable[Case]:
    """All malformed inputs."""
    return [*parameters(), *run_ids(stage), *files(stage)]


def attempt(case: Case) -> Outcome:
    """Give a case to its command."""
    signal.alarm(PATIENCE)
    try:
        result = CliRunner().invoke(main, case.words, env=case.environment)
    except LateError as error:
        return Outcome(case, True, False, str(error))
    finally:
        signal.alarm(0)
    raised = result.exception is not None and not isinstance(result.exception, SystemExit)
    odd = raised or "Traceback" in result.output or "E999" in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error[")]
    told = len(lines) == 1 and lines[0].startswith(f"error[{case.code}]: ") and "Hint: " in lines[0]
    right = result.exit_code == int(case.code[1])
    return Outcome(case, odd, told and right, repr(result.exception) if raised else result.output)


def _late(*_: object) -> None:
    raise LateError(f"not refused within {PATIENCE} s")


if __name__ == "__main__":
    print(measure())
