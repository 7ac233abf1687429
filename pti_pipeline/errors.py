"""Errors a user can do something about: one line, what and what to do, with an exit code."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Write a text as one line that a terminal only shows: other characters are escaped.

    Examples
    --------
    >>> printable("two\n lines, \x1b[2J")
    'two lines, \\x1b[2J'
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class PtiError(Exception):
    """Something the user can mend.

    Parameters
    ----------
    code : str
        Of the table in ``docs/reference/errors.md``, e.g. ``"E201"``.
    what : str
        What is wrong, naming the value.
    hint : str
        What to do.
    """

    exit_code = 1

    def __init__(self, code: str, what: str, hint: str) -> None:
        super().__init__(printable(f"error[{code}]: {what}. Hint: {hint}."))
        self.code, self.what, self.hint = code, what, hint

    def __reduce__(self) -> tuple[object, ...]:
        """Let a worker's error reach the process that it works for."""
        return type(self), (self.code, self.what, self.hint)


DEBUG = "PTI_DEBUG"
"""Environment variable that says the same as ``--debug``, to other processes too."""
LONGEST = 500
"""Letters of an unexpected error that are shown."""


class UsageError(PtiError):
    """A bad parameter."""

    exit_code = 2


class DataError(PtiError):
    """Bad input data."""

    exit_code = 3


class ModelError(PtiError):
    """An incompatible or unsafe model or artifact."""

    exit_code = 4


class StoreError(PtiError):
    """The tracking store can't be reached."""

    exit_code = 5


class ResourceError(PtiError):
    """Too little disk or memory."""

    exit_code = 6


class LockedError(PtiError):
    """Another process is at it."""

    exit_code = 7


class DivergedError(PtiError):
    """Training diverged."""

    exit_code = 10


def unexpected(error: Exception, debug: bool) -> PtiError:
    """Say in one line what nobody caught; ``debug``: its traceback is shown above."""
    what = f"{type(error).__name__}: {error}".rstrip(": .")[:LONGEST]
    told: PtiError
    if is_out_of_memory(error):
        hint = "use --precision=bf16, a smaller base model, or more memory"
        told = ResourceError("E601", f"memory ran out ({what})", hint)
    else:
        hint = "run again with --debug=yes and report it"
        told = PtiError("E999", what, "report it with what stands above" if debug else hint)
    told.__cause__ = error
    return told


def reason(error: Exception) -> str:
    """Say what a library raised, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device's or the host's allocator gave up; PyTorch has its own words for each."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = "can't allocate memory", "not enough memory", "out of memory"
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)
